"""The seam of a scheduling strategy: values in, decisions out. Nothing here reads a clock or a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRun:
    """What a strategy knows of a run in the queue. Times in seconds since the epoch."""

    run_id: str
    seq: int
    """The order of arrival; breaks ties of keys."""
    enqueued_at: float
    priority: int
    """Lower is more urgent."""
    deadline: float | None = None
    estimate_s: float | None = None
    """How long it will probably take, in seconds; None where that is not known."""
    demands: Mapping[str, float] = field(default_factory=dict)
    """How much of which pool it holds from its start to its end; places of an agent are the pool `agent:NAME`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRun:
    """What a strategy knows of a run that holds a slot."""

    run_id: str
    demands: Mapping[str, float] = field(default_factory=dict)
    expected_end: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What there is at the moment of a decision."""

    now: float
    free_slots: int
    running: Sequence[RunningRun] = ()
    capacity: Mapping[str, float] = field(default_factory=dict)
    """Every pool's size; of a pool that is not named there is nothing. Who demands more than there is takes the whole
    pool, alone."""
    load: float | None = None
    """The machine's load, 0 to 1; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLoad:
    """What a strategy knows of an agent that is able to take a task."""

    name: str
    running: int
    capacity: int
    outstanding: float
    """The complexity of the tasks that it has under way."""


class Strategy(Protocol):
    """Which queued run starts next, and which agent takes a task."""

    name: str
    look_ahead: int
    """How many queued runs beyond the free slots `admit` wants to see."""
    needs_estimates: bool
    """Whether its decisions use how long runs take."""

    def key(self, run: QueuedRun) -> float:
        """The run's place in the queue, fixed when it is queued: lower starts first, equal ones as they arrived."""
        ...

    def admit(self, queue: Sequence[QueuedRun], situation: Situation) -> list[QueuedRun]:
        """Which runs of the queue's head (given in the order of their keys) start now."""
        ...

    def place(self, agents: Sequence[AgentLoad]) -> int | None:
        """The index of the agent that takes a task, among those able to; None where all are busy."""
        ...
