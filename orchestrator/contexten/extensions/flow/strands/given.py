"""Agents, graphs and swarms of Strands that are given from Python as agents of flows.

They keep their own model, tools and instructions; each task finds the conversation as it was given.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..agents.protocol import MODEL, AttemptContext, Json, TaskCall
from ..clock import Clock, SystemClock
from ..errors import AttemptError
from ..models.answers import Misfit, has_structure, read_answer
from ..models.failures import failure_of
from ..models.keys import Keys
from ..models.objective import prompt, read_options
from .journal import CURRENT, AttemptJournal, Bounds
from .recognition import is_team

if TYPE_CHECKING:
    from strands import Agent
    from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeModelCallEvent, HookRegistry

AGENT_TYPE = "strands"

_UNNAMED = frozenset({"", "Strands Agents", "default_graph", "default_swarm"})


class GivenAgent:
    """An agent of the flow's protocol around one of Strands, which works on one task at a time."""

    traits = MODEL
    agent_type = AGENT_TYPE
    capacity = 1

    def __init__(self, target: Any, clock: Clock | None = None) -> None:
        self._target = target
        self._is_team = is_team(target)
        self._clock = clock or SystemClock()
        self._keys = Keys()
        own = str(getattr(target, "id" if self._is_team else "name", "") or "")
        self.name = type(target).__name__.lower() if own in _UNNAMED else own
        self.tools = () if self._is_team else tuple(getattr(target, "tool_names", ()))

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """One attempt. Raises AttemptError."""
        options, data = read_options(task)
        parts = list(_parts(self._target))
        async with _turn_of(parts):
            agents = [part for part in parts if not is_team(part)]
            _listen(agents)
            journal = AttemptJournal(
                context,
                self._clock,
                bounds=Bounds(turns=options.max_turns, tokens=options.max_tokens),
                model_of=_model_of,
            )
            self._keys.note_environment()
            token = CURRENT.set(journal)
            try:
                with _kept(agents, self._target):
                    async with journal.watching():
                        return await self._work(task, prompt(task, context, data), journal)
            except AttemptError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever libraries of providers raise
                raise failure_of(error, self._clock, mask=self._keys.mask) from None
            finally:
                CURRENT.reset(token)

    async def _work(self, task: TaskCall, text: str, journal: AttemptJournal) -> Json:
        from .conversation import converse
        from .patterns import work

        if not self._is_team:
            return await converse(lambda words: self._ask(words, journal), text, task.output_schema)
        found = await work(self._target, text, journal.note)
        if not has_structure(task.output_schema) or not isinstance(found, str):
            return found
        try:
            return read_answer(found, task.output_schema)
        except Misfit as misfit:
            raise AttemptError(
                f"The agents gave no answer that fits output_schema: {misfit}.", kind="invalid"
            ) from None

    async def _ask(self, text: str, journal: AttemptJournal) -> AsyncIterator[Any]:
        async for event in self._target.stream_async(text):
            journal.hear(self._target, event)
            yield event


def _parts(target: Any) -> Iterator[Any]:
    """It, and of a team all that work in it."""
    yield target
    if is_team(target):
        for node in getattr(target, "nodes", {}).values():
            yield from _parts(node.executor)


_TURNS: WeakKeyDictionary[Any, WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


@asynccontextmanager
async def _turn_of(parts: Iterable[Any]) -> AsyncIterator[None]:
    """Each of them is at one task at a time, under how many names, in how many teams and to how many services of this
    event loop it was given."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for _, part in sorted({id(part): part for part in parts}.items()):  # in one order: none wait for each other
            turns = _TURNS.setdefault(part, WeakKeyDictionary())
            await stack.enter_async_context(turns.setdefault(loop, asyncio.Lock()))
        yield


class _Relay:
    """Hooks of a given agent, which stay: they tell the journal of the attempt that is under way."""

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeModelCallEvent

        registry.add_callback(BeforeModelCallEvent, self._model_begins)
        registry.add_callback(AfterModelCallEvent, self._model_ended)
        registry.add_callback(AfterToolCallEvent, self._tool_ended)

    def _model_begins(self, event: BeforeModelCallEvent) -> None:
        journal = CURRENT.get()
        if journal is not None:
            journal.model_begins(event)

    def _model_ended(self, event: AfterModelCallEvent) -> None:
        journal = CURRENT.get()
        if journal is not None:
            journal.model_ended(event)

    def _tool_ended(self, event: AfterToolCallEvent) -> None:
        journal = CURRENT.get()
        if journal is not None:
            is_done = event.result.get("status") == "success"
            journal.tell_tool(str(event.tool_use["name"]), ok=is_done, ms=(event.duration or 0.0) * 1000)


_RELAY = _Relay()
_LISTENING = "_contexten_flow_listens"


def _listen(agents: list[Any]) -> None:
    for agent in agents:
        hooks = getattr(agent, "hooks", None)
        if hooks is not None and not getattr(agent, _LISTENING, False):
            hooks.add_hook(_RELAY)
            setattr(agent, _LISTENING, True)


@contextmanager
def _kept(agents: list[Agent], team: Any) -> Iterator[None]:
    """Afterwards the agents are as they were: what one task said is not told to the next."""
    before = [copy.deepcopy(getattr(agent, "messages", [])) for agent in agents]
    shared = getattr(team, "shared_context", None)
    context = copy.deepcopy(shared.context) if shared is not None else None
    try:
        yield
    finally:
        for agent, messages in zip(agents, before, strict=True):
            if hasattr(agent, "messages"):
                agent.messages = messages
        if shared is not None:
            team.shared_context.context = context


def _model_of(agent: Any) -> str:
    config: Any = getattr(getattr(agent, "model", None), "get_config", dict)()
    name = config.get("model_id") if isinstance(config, dict) else None
    return str(name or type(getattr(agent, "model", agent)).__name__)
