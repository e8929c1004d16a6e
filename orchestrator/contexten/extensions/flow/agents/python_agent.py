"""Agents given from Python: objects of the protocol, complete or not, and plain async functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from ..strands.recognition import is_strands
from .protocol import MODEL, AttemptContext, Json, TaskCall, Traits

_DEFAULT_TYPE = "python"
_EXPECTED = (
    "an agent is an object with `async def run(task, context)` (and, if it likes, name, agent_type, tools, capacity), "
    "an async function of (task, context), or an agent, graph or swarm of Strands"
)

_Call = Callable[..., Awaitable[Json]]


class PythonAgent:
    """An object or function of a user as an agent; what it does not say gets a default."""

    __slots__ = ("_call", "_with_context", "agent_type", "capacity", "name", "target", "tools", "traits")

    def __init__(
        self,
        target: object,
        call: _Call,
        *,
        name: str,
        agent_type: str = _DEFAULT_TYPE,
        tools: Sequence[str] = (),
        capacity: int = 1,
        traits: Traits,
    ) -> None:
        self.target = target
        """What the user gave."""
        self.traits = traits
        self.name = name
        self.agent_type = agent_type
        self.tools: Sequence[str] = tools
        self.capacity = capacity
        self._call = call
        self._with_context = _takes_context(call, name)

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        try:
            if self._with_context:
                return await self._call(task, context)
            return await self._call(task)
        except SystemExit as error:  # it would end the whole process
            raise RuntimeError(f"the agent {self.name!r} raised SystemExit") from error

    async def reinitialize(self) -> None:
        """The target's own, where it has one."""
        await _call_if_there(self.target, "reinitialize")

    async def aclose(self) -> None:
        """The target's own, where it has one."""
        await _call_if_there(self.target, "aclose")


def adapt_agents(agents: object) -> list[PythonAgent]:
    """What users give as `agents=` as agents, in its order: None, one agent, an iterable, or a mapping by name.

    Raises TypeError or ValueError, naming the item, where one is no agent.
    """
    if agents is None:
        return []
    if isinstance(agents, Mapping):
        items: list[tuple[str | None, object]] = []
        for name, target in agents.items():
            if not isinstance(name, str):
                raise TypeError(f"agents: the names of a mapping are strings, got {name!r}")
            items.append((name, target))
    elif isinstance(agents, str | bytes):
        raise TypeError(f"agents: got text; {_EXPECTED}")
    elif isinstance(agents, Iterable):
        items = [(None, target) for target in agents]
    else:
        items = [(None, agents)]
    adapted = [
        _adapt(target, name, f"agents[{name!r}]" if name is not None else f"agents[{index}]")
        for index, (name, target) in enumerate(items)
    ]
    names = [agent.name for agent in adapted]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"agents: two of them are named {name!r}; give each its own name")
    return adapted


def _adapt(target: object, key: str | None, where: str) -> PythonAgent:
    if isinstance(target, PythonAgent):
        if key is None or key == target.name:
            return target
        return PythonAgent(
            target.target,
            target._call,  # noqa: SLF001 - its own class
            name=key,
            agent_type=target.agent_type,
            tools=target.tools,
            capacity=target.capacity,
            traits=target.traits,
        )
    if is_strands(target):
        from ..strands.given import GivenAgent

        given = GivenAgent(target)
        return PythonAgent(
            target,
            given.run,
            name=key or given.name,
            agent_type=given.agent_type,
            tools=given.tools,
            capacity=given.capacity,
            traits=MODEL,
        )
    if isinstance(target, type):
        raise TypeError(f"{where} is the class {target.__name__}; give an instance of it")
    run = getattr(target, "run", None)
    is_object = callable(run)
    call: Any = run if is_object else target
    if not callable(call):
        raise TypeError(f"{where} is a {type(target).__name__}, which is no agent: {_EXPECTED}")
    label = f"{where}.run" if is_object else where
    if not _is_async(call):
        raise TypeError(f"{label} is not async: write it as `async def`; {_EXPECTED}")
    own_name = getattr(target, "name", None)
    if not isinstance(own_name, str) or not own_name:
        own_name = getattr(inspect.unwrap(call), "__name__", None) if not is_object else None
        own_name = own_name if own_name not in (None, "<lambda>", "__call__") else type(target).__name__
    name = key or own_name
    if not isinstance(name, str):
        raise TypeError(f"{where} has no name: give agents as a mapping of names")
    return PythonAgent(
        target,
        call,
        name=name,
        agent_type=_text(target, "agent_type", _DEFAULT_TYPE, where),
        tools=_tools(target, () if is_object else (name,), where),
        capacity=_capacity(target, where),
        traits=_traits(target, where),
    )


def _is_async(call: Any) -> bool:
    call = inspect.unwrap(call)
    while hasattr(call, "func") and hasattr(call, "keywords"):  # functools.partial
        call = inspect.unwrap(call.func)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


def _takes_context(call: _Call, name: str) -> bool:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return True
    for count in (2, 1):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 2
    raise TypeError(f"the agent {name!r} must take (task, context) or (task); it takes {signature}")


def _text(target: object, attribute: str, default: str, where: str) -> str:
    value = getattr(target, attribute, None)
    if value is None:
        return default
    if not isinstance(value, str):
        raise TypeError(f"{where}.{attribute} must be a string, got {value!r}")
    return value


def _tools(target: object, default: tuple[str, ...], where: str) -> tuple[str, ...]:
    value: Any = getattr(target, "tools", None)
    if value is None:
        return default
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{where}.tools must be a list of tool names, got {value!r}")
    names = tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{where}.tools must be names of tools, got {name!r}")
    return names


def _traits(target: object, where: str) -> Traits:
    value = getattr(target, "traits", None)
    if value is None:
        return Traits()
    if not isinstance(value, Traits):
        raise TypeError(f"{where}.traits must be Traits, got {value!r}")
    return value


def _capacity(target: object, where: str) -> int:
    value = getattr(target, "capacity", None)
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{where}.capacity must be a whole number of at least 1, got {value!r}")
    return value


async def _call_if_there(target: object, name: str) -> None:
    method = getattr(target, name, None)
    if callable(method):
        result = method()
        if inspect.isawaitable(result):
            await result
