"""Which agents there are, which one takes a task, and how much each has to do.

One event loop owns a registry; nothing in it blocks or awaits but closing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from ..definition.catalog import AgentSpec, ToolSpec
from ..strategies import AgentLoad, least_loaded
from .protocol import Agent
from .python_agent import adapt_agents
from .tool_agent import BuiltinToolAgent

logger = logging.getLogger(__name__)

_ANSWERS_KEPT = 4096


class Demand(Protocol):
    """What of a task decides who can take it; a TaskCall and a task of a definition both have it."""

    @property
    def required_tools(self) -> Sequence[str]: ...
    @property
    def preferred_agent_type(self) -> str | None: ...
    @property
    def complexity(self) -> float: ...


class _Entry:
    """An agent and its load."""

    __slots__ = ("agent", "capacity", "is_builtin", "limit", "outstanding", "running", "tools")

    def __init__(self, agent: Agent, *, is_builtin: bool) -> None:
        self.agent = agent
        self.is_builtin = is_builtin
        self.capacity = agent.capacity
        self.limit = agent.capacity
        """Places now: fewer than `capacity` while its concurrency is lowered."""
        self.tools = frozenset(agent.tools)
        self.running = 0
        self.outstanding = 0.0

    @property
    def load(self) -> float:
        return self.outstanding / self.capacity

    def as_load(self) -> AgentLoad:
        return AgentLoad(name=self.agent.name, running=self.running, capacity=self.limit, outstanding=self.outstanding)


class AgentRegistry:
    """The agents of a process.

    A task goes to an agent that offers all tools it requires: to one of the preferred type where there is one, else to
    one given from Python where there is one, else to the built-in one. Only the best of these groups counts: a task
    waits for a busy agent of it rather than fall to the next. Within the group, `placement` decides.
    """

    def __init__(self, agents: object = None, builtin: BuiltinToolAgent | None = None) -> None:
        self.builtin = builtin
        self._entries: dict[str, _Entry] = {}
        self.placement: Callable[[Sequence[AgentLoad]], int | None] = least_loaded
        """Which of several able agents takes a task: the index, or None where all are busy."""
        self._answers: dict[tuple[tuple[str, ...], str | None], tuple[tuple[_Entry, ...], ...]] = {}
        self.generation = 0
        """Grows where `select` may answer otherwise than before."""
        self.add(agents)

    def add(self, agents: object) -> None:
        """Take more agents, as users give them; one with a known name replaces it for tasks to come.

        Raises TypeError or ValueError where one is no agent, or takes the built-in one's name."""
        adapted = adapt_agents(agents)
        if self.builtin is not None and any(agent.name == self.builtin.name for agent in adapted):
            raise ValueError(f"the name {self.builtin.name!r} is that of the built-in tool agent; choose another")
        for agent in adapted:
            before = self._entries.get(agent.name)
            entry = _Entry(agent, is_builtin=False)
            if before is not None:
                if getattr(before.agent, "target", None) is agent.target:  # given again
                    continue
                entry.running, entry.outstanding = before.running, before.outstanding
                entry.limit = min(entry.limit, before.limit) if before.limit < before.capacity else entry.limit
            self._entries[agent.name] = entry
        builtin = self._entries.pop(self.builtin.name, None) if self.builtin is not None else None
        if self.builtin is not None:  # it stays the last
            self._entries[self.builtin.name] = builtin or _Entry(self.builtin, is_builtin=True)
        self._answers.clear()
        self.generation += 1

    def select(self, task: Demand) -> Agent | None:
        """The agent that would take the task if none were busy; None where no agent can ever take it."""
        groups = self._groups(task)
        return groups[0][0].agent if groups else None

    def try_acquire(self, task: Demand, exclude: Collection[str] = ()) -> Agent | None:
        """Take a place of an agent for the task, without waiting; None where all that may take it are busy.

        `exclude` names agents to avoid; where no other is able, it is disregarded. Each place is given back by one
        `release`."""
        groups = self._groups(task)
        if exclude:
            rest = tuple(left for group in groups if (left := tuple(e for e in group if e.agent.name not in exclude)))
            groups = rest or groups
        best = self._best(groups[0]) if groups else None
        if best is None:
            return None
        best.running += 1
        best.outstanding += task.complexity
        return best.agent

    def _best(self, group: tuple[_Entry, ...]) -> _Entry | None:
        if len(group) == 1:  # nothing to choose
            return group[0] if group[0].running < group[0].limit else None
        index = self.placement([entry.as_load() for entry in group])
        return None if index is None else group[index]

    def release(self, agent: Agent, task: Demand | None = None) -> None:
        """Give a place back; `task` is the one it was taken for (without it, an average of what is outstanding)."""
        entry = self._entries[agent.name]
        if entry.running <= 0:
            raise RuntimeError(f"the agent {agent.name!r} was released more often than acquired")
        entry.outstanding -= entry.outstanding / entry.running if task is None else task.complexity
        entry.running -= 1
        if entry.running == 0 or entry.outstanding < 0:
            entry.outstanding = 0.0

    def able(self, task: Demand) -> tuple[str, ...]:
        """The names of all agents that are able to take the task, in the order in which they would."""
        return tuple(entry.agent.name for group in self._groups(task) for entry in group)

    def crowd(self, task: Demand) -> dict[str, int]:
        """The agents that the task waits for, each with its places, where all of them are taken; else nothing."""
        groups = self._groups(task)
        if not groups or any(entry.running < entry.limit for entry in groups[0]):
            return {}
        return {entry.agent.name: entry.limit for entry in groups[0]}

    def find(self, name: str) -> Agent | None:
        """The agent of that name."""
        entry = self._entries.get(name)
        return entry.agent if entry is not None else None

    def lower(self, name: str) -> int | None:
        """Halve an agent's places, from those in use now; answers how many it has then, None where it has but one."""
        entry = self._entries.get(name)
        if entry is None or entry.limit <= 1:
            return None
        entry.limit = max(1, min(entry.limit, entry.running + 1) // 2)
        return entry.limit

    def restore(self, name: str) -> None:
        """Give an agent all its places back."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.limit = entry.capacity

    def _groups(self, task: Demand) -> tuple[tuple[_Entry, ...], ...]:
        required = task.required_tools
        key = (required if isinstance(required, tuple) else tuple(required), task.preferred_agent_type)
        groups = self._answers.get(key)
        if groups is None:
            groups = self._find_groups(*key)
            if len(self._answers) >= _ANSWERS_KEPT:
                self._answers.clear()
            self._answers[key] = groups
        return groups

    def _find_groups(self, required: tuple[str, ...], preferred: str | None) -> tuple[tuple[_Entry, ...], ...]:
        wanted = frozenset(required)
        groups: dict[tuple[bool, bool], list[_Entry]] = {}
        for entry in self._entries.values():
            if wanted <= entry.tools:
                rank = (preferred is None or entry.agent.agent_type != preferred, entry.is_builtin)
                groups.setdefault(rank, []).append(entry)
        return tuple(tuple(groups[rank]) for rank in sorted(groups))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def agents(self) -> tuple[Agent, ...]:
        """All agents: those given from Python in their order, then the built-in one."""
        return tuple(entry.agent for entry in self._entries.values())

    def places(self) -> dict[str, float]:
        """How many tasks each agent takes at once, by `agent:NAME`: the pools of the scheduler."""
        return {f"agent:{entry.agent.name}": float(entry.capacity) for entry in self._entries.values()}

    @property
    def running(self) -> int:
        """Tasks that agents execute now."""
        return sum(entry.running for entry in self._entries.values())

    def agent_specs(self) -> tuple[AgentSpec, ...]:
        """The agents as the checker of definitions sees them."""
        return tuple(
            AgentSpec(
                name=entry.agent.name,
                agent_type=entry.agent.agent_type,
                tools=tuple(entry.agent.tools),
                builtin=entry.is_builtin,
            )
            for entry in self._entries.values()
        )

    def tool_specs(self) -> dict[str, ToolSpec]:
        """The tools whose parameters are known: the built-in ones, by name."""
        if self.builtin is None:
            return {}
        return {name: tool.spec for name, tool in self.builtin.builtin_tools.items()}

    def disabled_tools(self) -> dict[str, str]:
        """Built-in tools that are off, with what enables each."""
        return dict(self.builtin.disabled_tools) if self.builtin is not None else {}

    def snapshot(self) -> dict[str, Any]:
        """What list_agents shows: `agents`, `tools` (with JSON Schemas of their parameters) and `disabled_tools`."""
        specs = self.tool_specs()
        names = dict.fromkeys([*specs, *(tool for entry in self._entries.values() for tool in entry.agent.tools)])
        return {
            "agents": [
                {
                    "name": entry.agent.name,
                    "agent_type": entry.agent.agent_type,
                    "tools": list(entry.agent.tools),
                    "capacity": entry.capacity,
                    "running": entry.running,
                    "load": round(entry.load, 4),
                    **({"lowered_to": entry.limit} if entry.limit < entry.capacity else {}),
                }
                for entry in self._entries.values()
            ],
            "tools": [self._tool_view(name, specs.get(name)) for name in names],
            "disabled_tools": self.disabled_tools(),
        }

    def _tool_view(self, name: str, spec: ToolSpec | None) -> dict[str, Any]:
        model = spec.parameters if spec is not None else None
        return {
            "name": name,
            "description": spec.description if spec is not None else "",
            "parameters": model.model_json_schema(by_alias=True) if model is not None else None,
            "agents": [entry.agent.name for entry in self._entries.values() if name in entry.tools],
        }

    async def aclose(self) -> None:
        """Close all agents; one that fails to is logged and does not keep the others open."""
        for agent in self.agents:
            close = getattr(agent, "aclose", None)
            if close is not None:
                try:
                    await close()
                except Exception as error:  # noqa: BLE001 - a stranger's code; its text may hold secrets
                    logger.warning(
                        "the agent %s failed to close: %s",
                        agent.name,
                        type(error).__name__,
                        extra={"action": "close_agent", "agent": agent.name},
                    )
