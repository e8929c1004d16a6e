"""The seam between the orchestrator and whatever executes a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

Json = Any
"""JSON data: None, bool, int, float, str, list and dict with string keys."""


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

    def log(self, level: str, message: str) -> None:
        """Write a line about this attempt to the run's journal (`level`: debug, info, warning or error)."""
        self.log_sink(level, message)


@runtime_checkable
class Agent(Protocol):
    """What executes tasks.

    Optional besides: `async reinitialize()`, called after an agent_failure where no other agent is able, and
    `async aclose()`, called when the service closes.
    """

    name: str
    agent_type: str
    tools: Sequence[str]
    capacity: int
    """Tasks that it executes at once."""

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """Execute one attempt and return its output as JSON data.

        Raises AttemptError to say the kind of a failure; any other exception is classified by
        `recovery.kinds`. It is cancelled when the attempt times out or the run is cancelled.
        """
        ...
