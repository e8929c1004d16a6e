"""Which agents there are, which one takes a task, and how much each has to do.

One event loop owns a registry; nothing in it blocks or awaits but closing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..definition.catalog import AgentSpec, ToolSpec
from ..strategies import AgentLoad, least_loaded
from .mcp import McpAgent
from .protocol import Agent, traits_of
from .python_agent import adapt_agents
from .reserved import owner_of
from .retirement import Retirement, close_agent
from .tool_agent import BuiltinToolAgent

TOOL = "tool"
"""The kind of task that tools do."""

_ANSWERS_KEPT = 4096


class Demand(Protocol):
    """What of a task decides who can take it; a TaskCall and a task of a definition both have it."""

    @property
    def type(self) -> str: ...
    @property
    def required_tools(self) -> Sequence[str]: ...
    @property
    def preferred_agent_type(self) -> str | None: ...
    @property
    def complexity(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Worker:
    """An engine's own agent for a task: it stands where the built-in agents stand for other tasks."""

    agent: Agent | None
    """None where the engine cannot be had here: nobody takes what would be its agent's."""
    is_alone: bool = False
    """No other agent may take the task."""
    is_for_models: bool = False
    """Of agents given from Python only models, and those of the task's preferred type, go before it."""


class _Entry:
    """An agent and its load."""

    __slots__ = (
        "agent",
        "capacity",
        "is_builtin",
        "is_worker",
        "limit",
        "offers",
        "outstanding",
        "running",
        "takes_agent_work",
        "tools",
    )

    def __init__(self, agent: Agent, *, is_builtin: bool, is_worker: bool = False) -> None:
        self.agent = agent
        self.is_builtin = is_builtin
        self.is_worker = is_worker
        self.capacity = agent.capacity
        self.limit = agent.capacity
        """Places now: fewer than `capacity` while its concurrency is lowered."""
        self.tools = frozenset(agent.tools)
        self.offers: Callable[[frozenset[str]], bool] = agent.offers if isinstance(agent, McpAgent) else self._has
        """Whether the agent can serve a task that requires those tools."""
        self.takes_agent_work = not is_worker and traits_of(agent).takes_agent_work
        """Whether it is a model that was given from Python."""
        self.running = 0
        self.outstanding = 0.0

    def _has(self, tools: frozenset[str]) -> bool:
        return tools <= self.tools

    @property
    def load(self) -> float:
        return self.outstanding / self.capacity

    def as_load(self) -> AgentLoad:
        return AgentLoad(name=self.agent.name, running=self.running, capacity=self.limit, outstanding=self.outstanding)


class AgentRegistry:
    """The agents of a process.

    A task goes to an agent that offers all tools it requires: to one of the preferred type where there is one, else to
    one given from Python where there is one, else to a built-in one (those of MCP servers count as such). Only the best
    of these groups counts: a task waits for a busy agent of it rather than fall to the next. Within the group,
    `placement` decides.
    """

    def __init__(
        self, agents: object = None, builtin: BuiltinToolAgent | None = None, servers: Sequence[McpAgent] = ()
    ) -> None:
        """`servers` are MCP servers; their tools may come and go."""
        self.builtin = builtin
        self._servers = tuple(servers)
        self._builtins: tuple[Agent, ...] = (*self._servers, *(() if builtin is None else (builtin,)))
        self._entries: dict[str, _Entry] = {}
        self._retirement = Retirement(self._has_target_of)
        self.placement: Callable[[Sequence[AgentLoad]], int | None] = least_loaded
        """Which of several able agents takes a task: the index, or None where all are busy."""
        self._answers: dict[
            tuple[tuple[str, ...], str | None, Worker | None, bool], tuple[tuple[_Entry, ...], ...]
        ] = {}
        self.generation = 0
        """Grows where `select` may answer otherwise than before."""
        self.add(agents)

    def add(self, agents: object) -> None:
        """Take more agents, as users give them; one with a known name replaces it for tasks to come;
        the former is closed when its last attempt has ended.

        Raises TypeError or ValueError where one is no agent, or takes the name of one of ours."""
        adapted = adapt_agents(agents)
        servers = {server.name for server in self._servers}
        for agent in adapted:
            whose = "an MCP server" if agent.name in servers else owner_of(agent.name)
            if whose is not None:
                raise ValueError(f"the name {agent.name!r} is that of {whose}; choose another")
        for agent in adapted:
            before = self._entries.get(agent.name)
            entry = _Entry(agent, is_builtin=False)
            if before is not None:
                if getattr(before.agent, "target", None) is agent.target:  # given again
                    continue
                entry.running, entry.outstanding = before.running, before.outstanding
                entry.limit = min(entry.limit, before.limit) if before.limit < before.capacity else entry.limit
            self._entries[agent.name] = entry
            if before is not None:
                self._retirement.retire(before.agent, before.running)
        for builtin in self._builtins:  # they stay the last
            before = self._entries.pop(builtin.name, None)
            self._entries[builtin.name] = _Entry(builtin, is_builtin=True) if before is None else before
        self._changed()

    def _has_target_of(self, agent: Agent) -> bool:
        target = getattr(agent, "target", agent)
        return any(getattr(entry.agent, "target", entry.agent) is target for entry in self._entries.values())

    def _changed(self) -> None:
        self._answers.clear()
        self.generation += 1

    def start(self, on_change: Callable[[], None]) -> None:
        """Have the MCP servers opened in the background; `on_change` is called when tools came or went."""

        def changed() -> None:
            for server in self._servers:
                self._entries[server.name].tools = frozenset(server.tools)
            self._changed()
            on_change()

        for server in self._servers:
            server.start(changed)

    async def ready(self, tools: Collection[str]) -> None:
        """Wait until the MCP servers that those tools would be of have listed theirs, or failed to."""
        await asyncio.gather(*(server.ready() for server in self._servers if any(map(server.is_named_by, tools))))

    def reason_without(self, tool: str) -> str | None:
        """Why a tool of an MCP server is not there now; None where nothing is known of it."""
        return next((why for server in self._servers if (why := server.reason_without(tool)) is not None), None)

    def hire(self, agent: Agent) -> None:
        """Take an engine's agent, in the place of a former one of its name; it takes only tasks that name it as their
        worker. Its name is one that users cannot take (see `reserved`)."""
        before = self._entries.get(agent.name)
        entry = self._entries[agent.name] = _Entry(agent, is_builtin=True, is_worker=True)
        if before is not None:
            entry.running, entry.outstanding = before.running, before.outstanding
        self._answers.clear()

    def select(self, task: Demand, worker: Worker | None = None) -> Agent | None:
        """The agent that would take the task if none were busy; None where no agent can ever take it."""
        groups = self._groups(task, worker)
        return groups[0][0].agent if groups else None

    def offering(self, tool: str) -> Agent | None:
        """The agent that would serve a call of that tool alone."""
        groups = self._find_groups((tool,), None, None, is_for_tools=True)
        return groups[0][0].agent if groups else None

    def try_acquire(self, task: Demand, exclude: Collection[str] = (), worker: Worker | None = None) -> Agent | None:
        """Take a place of an agent for the task, without waiting; None where all that may take it are busy.

        `exclude` names agents to avoid; where no other is able, it is disregarded. Each place is given back by one
        `release`."""
        groups = self._groups(task, worker)
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
        if entry.agent is not agent:
            self._retirement.ended(agent)
        if entry.running <= 0:
            raise RuntimeError(f"the agent {agent.name!r} was released more often than acquired")
        entry.outstanding -= entry.outstanding / entry.running if task is None else task.complexity
        entry.running -= 1
        if entry.running == 0 or entry.outstanding < 0:
            entry.outstanding = 0.0

    def able(self, task: Demand, worker: Worker | None = None) -> tuple[str, ...]:
        """The names of all agents that are able to take the task, in the order in which they would."""
        return tuple(entry.agent.name for group in self._groups(task, worker) for entry in group)

    def crowd(self, task: Demand, worker: Worker | None = None) -> dict[str, int]:
        """The agents that the task waits for, each with its places, where all of them are taken; else nothing."""
        groups = self._groups(task, worker)
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

    def _groups(self, task: Demand, worker: Worker | None) -> tuple[tuple[_Entry, ...], ...]:
        required = task.required_tools
        tools = required if isinstance(required, tuple) else tuple(required)
        key = (tools, task.preferred_agent_type, worker, task.type == TOOL)
        groups = self._answers.get(key)
        if groups is None:
            groups = self._find_groups(*key[:3], is_for_tools=key[3])
            if len(self._answers) >= _ANSWERS_KEPT:
                self._answers.clear()
            self._answers[key] = groups
        return groups

    def _find_groups(
        self, required: tuple[str, ...], preferred: str | None, worker: Worker | None, *, is_for_tools: bool
    ) -> tuple[tuple[_Entry, ...], ...]:
        wanted = frozenset(required)
        groups: dict[tuple[bool, bool], list[_Entry]] = {}
        for entry in self._entries.values():
            if is_for_tools and entry.takes_agent_work and entry.agent.agent_type != preferred:
                continue  # what tools do needs no model
            if _may_take(entry, wanted, preferred, worker):
                rank = (preferred is None or entry.agent.agent_type != preferred, entry.is_builtin)
                groups.setdefault(rank, []).append(entry)
        return tuple(tuple(groups[rank]) for rank in sorted(groups))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def agents(self) -> tuple[Agent, ...]:
        """All agents: those given from Python in their order, then MCP servers, then the built-in one."""
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
                is_model=entry.takes_agent_work,
            )
            for entry in self._entries.values()
            if not entry.is_worker
        )

    def tool_specs(self) -> dict[str, ToolSpec]:
        """The tools of which more than the name is known: built-in ones and those of MCP servers, by name."""
        tools = {} if self.builtin is None else self.builtin.builtin_tools
        specs = {name: tool.spec for name, tool in tools.items()}
        for server in self._servers:
            specs |= server.specs
        return specs

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
                    **({"state": entry.agent.state} if isinstance(entry.agent, McpAgent) else {}),
                }
                for entry in self._entries.values()
            ],
            "tools": [self._tool_view(name, specs.get(name)) for name in names],
            "disabled_tools": self.disabled_tools(),
        }

    def _tool_view(self, name: str, spec: ToolSpec | None) -> dict[str, Any]:
        return {
            "name": name,
            "description": spec.description if spec is not None else "",
            "parameters": spec.json_schema() if spec is not None else None,
            "agents": [entry.agent.name for entry in self._entries.values() if name in entry.tools],
        }

    async def aclose(self) -> None:
        """Close all agents; one that fails to is logged and does not keep the others open."""
        await asyncio.gather(self._retirement.aclose(), *map(close_agent, self.agents))


def _may_take(entry: _Entry, wanted: frozenset[str], preferred: str | None, worker: Worker | None) -> bool:
    """Whether an agent is able and allowed to take a task that wants those tools."""
    if worker is None:
        return not entry.is_worker and entry.offers(wanted)
    if entry.is_builtin:
        return entry.agent is worker.agent
    if worker.is_alone or not wanted <= entry.tools:
        return False
    return not worker.is_for_models or entry.agent.agent_type == preferred or entry.takes_agent_work
