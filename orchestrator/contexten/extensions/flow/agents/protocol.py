"""The seam between the orchestrator and whatever executes a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

Json = Any
"""JSON data: None, bool, int, float, str, list and dict with string keys."""

AttemptEvent = Literal["task.model_called", "task.tool_called", "task.tool_vetoed", "task.usage"]
"""What happens within an attempt, besides lines of its log."""


class Ending(StrEnum):
    """Why an attempt is cancelled. Work that it had done elsewhere is to be cancelled there after the first two; after
    the others it is to be left alone, for the attempt is repeated under the same `attempt_id` and finds it again."""

    CANCELLED = "cancelled"
    """Its run, or the one that it is a sub-flow of, was cancelled."""
    TIMED_OUT = "timed_out"
    """Its `timeout_s`, or that of its run, is over."""
    STOPPING = "stopping"
    """The service stops; the next server, or the next start, repeats the attempt."""
    LOST = "lost"
    """Its run is not, or not any more, this server's to drive, or is begun anew from what was recorded."""


@dataclass(slots=True, kw_only=True)
class TaskCall:
    """One task as an agent receives it: templates are rendered, secrets are in place.

    Its fields can be read as attributes or as keys (`task.parameters`, `task["parameters"]`).
    """

    name: str
    type: str
    description: str | None
    required_tools: tuple[str, ...]
    parameters: dict[str, Json]
    complexity: float
    preferred_agent_type: str | None
    output_schema: dict[str, Json] | bool | None = None
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For each parameter that was rendered with secrets, their names."""
    upstream: Mapping[str, Json] = field(default_factory=dict)
    """The outputs of the completed tasks that it depends on directly, by task."""
    flow_name: str | None = None
    flow_description: str | None = None

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None

    def get(self, key: str, default: Any = None) -> Any:
        """The field of that name, or `default`."""
        return getattr(self, key, default)


@dataclass(slots=True, kw_only=True)
class AttemptContext:
    """What an agent knows of the attempt it is making."""

    run_id: str
    flow_id: str
    task: str
    attempt: int
    """From 1, over all tries of the task (of the item, in a for_each)."""
    attempt_id: str
    """The same when an attempt is repeated after a crash: an idempotency key for effects."""
    inputs: Mapping[str, Json]
    context: Mapping[str, Json]
    item_index: int | None = None
    timeout_s: float | None = None
    tool: str | None = None
    """The tool at work, where the agent tells: what a failure speaks against."""
    log_sink: Callable[[str, str], None] = field(default=lambda level, message: None, repr=False)
    """Called as (level, message); what the orchestrator writes to the journal as `task.log`."""

    record_sink: Callable[[str, dict[str, Json]], None] = field(default=lambda event, data: None, repr=False)
    """Called as (event, data); what the orchestrator writes to the journal."""
    _endings: list[Ending] = field(default_factory=list, repr=False)
    """One list for an attempt and the calls of tools within it, which have copies of its context."""

    @property
    def ending(self) -> Ending | None:
        """Why the attempt is being cancelled; known before `run` is cancelled, None as long as it is not."""
        return self._endings[0] if self._endings else None

    def end(self, why: Ending) -> None:
        """Say why the attempt is about to be cancelled. The first reason stays."""
        self._endings.append(why)

    def log(self, level: str, message: str) -> None:
        """Write a line about this attempt to the run's journal (`level`: debug, info, warning or error)."""
        self.log_sink(level, message)

    def record(self, event: AttemptEvent, data: dict[str, Json]) -> None:
        """Write to the run's journal what happened in this attempt: a model or a tool was called, a tool was vetoed,
        tokens were used ({model, input_tokens, output_tokens, cost_usd?}). Secrets are masked, too long data cut. What
        is no such entry is left out, and a line in the log says so."""
        self.record_sink(event, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What sets an agent apart from a plain function of its task."""

    takes_agent_work: bool = False
    """Given from Python it takes tasks of type `agent`, as a language model, and none that are a plain tool's."""
    knows_surroundings: bool = False
    """It is told what is around a task: `TaskCall.upstream`, `flow_name`, `flow_description`."""
    secrets: Literal["granted", "named", "own"] | Callable[[str], str] = "granted"
    """How it may receive a task's secrets: `granted`, where the settings grant them to its tools; `named`, where they
    name the agent itself; `own`, since it asks for each tool itself; or never, and for the value there stands in the
    parameters what this function of the secret's name answers."""


_PLAIN = Traits()
MODEL = Traits(takes_agent_work=True, knows_surroundings=True, secrets="named")
"""The traits of a language model: it says to others what it is told."""


def traits_of(agent: object) -> Traits:
    """The `traits` of an agent; the plain ones where it has none."""
    traits: Traits = getattr(agent, "traits", _PLAIN)
    return traits


@runtime_checkable
class Agent(Protocol):
    """What executes tasks.

    It may have besides:

    - `traits`: see Traits.
    - `async reinitialize()`: called after an agent_failure where no other agent is able.
    - `async aclose()`: called when the service closes.
    """

    name: str
    agent_type: str
    tools: Sequence[str]
    capacity: int
    """Tasks that it executes at once."""

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """Execute one attempt and return its output as JSON data.

        Raises AttemptError to say the kind of a failure. What the setting `error_kinds` (`ErrorKinds`) says of an
        exception goes before that; of what neither knows `recovery.kinds` tells the kind. It is cancelled
        (asyncio.CancelledError) when the attempt times out, the run is cancelled or lost to another server, or the
        service stops: `context.ending` says which, where it is asked after the cancellation was caught. Who goes on
        nonetheless is given up after `cancel_grace_s`, or a second after the service's grace; its place stays taken
        until it ends.
        """
        ...
