"""States of runs, tasks, deliveries and dispatches, and the one table of legal moves."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands."""

    SCHEDULED = "scheduled"
    """Queued for a slot. The scheduler moves it on; a crash leaves it queued."""
    RUNNING = "running"
    """Owned by one process and holding a slot. A crash leaves it so; the next owner resumes it."""
    WAITING = "waiting"
    """Nothing left to move but timers. It has no owner and no slot; the earliest timer schedules it again."""
    PAUSED = "paused"
    """A recorded request holds it; resuming schedules it again. A crash changes nothing."""
    COMPLETED = "completed"
    """Ended; every failure, if any, was tolerated. Final."""
    FAILED = "failed"
    """Ended by a failure that nothing tolerated. Final; retry makes a new run."""
    CANCELLED = "cancelled"
    """Ended on request or by its time limit's cancellation. Final."""

    @property
    def is_terminal(self) -> bool:
        """Whether the state is final."""
        return self in TERMINAL_RUN_STATES


class TaskState(StrEnum):
    """Where a task of a run stands."""

    PENDING = "pending"
    """Not started; the store keeps no row for it. The run's owner moves it on."""
    RUNNING = "running"
    """An attempt was made durable and may have effects. A crash leaves it so: it is run again or failed."""
    RETRYING = "retrying"
    """An attempt failed; the next starts at a recorded time. A crash keeps that time."""
    WAITING = "waiting"
    """Held by a timer or a sub-flow; uses no agent. A crash changes nothing."""
    COMPLETED = "completed"
    """Its output is recorded. Final."""
    FAILED = "failed"
    """Its last attempt failed. Final."""
    SKIPPED = "skipped"
    """It will not run; the reason is recorded. Final."""
    CANCELLED = "cancelled"
    """Its run was cancelled before it ended. Final."""

    @property
    def is_terminal(self) -> bool:
        """Whether the state is final."""
        return self in TERMINAL_TASK_STATES


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    ACCEPTED = "accepted"
    """Recorded; nothing was done about it yet. A server takes it, also after a crash."""
    STARTED = "started"
    """Its run is recorded. Final, but for a redelivery."""
    FILTERED = "filtered"
    """The trigger's filter, or its policy about overlaps, said no. Final, but for a redelivery."""
    FAILED = "failed"
    """No run could be started; the error says why. Final, but for a redelivery."""


class DispatchState(StrEnum):
    """Where a message to a receiver stands."""

    PENDING = "pending"
    """It waits for its first or its next try. Any server takes it when it is due."""
    SENDING = "sending"
    """A server is trying. Where that one dies, another tries again when its claim has ended."""
    SENT = "sent"
    """The receiver answered that it has it. Final."""
    DEAD = "dead"
    """Given up after the last try; the error says why. Final, but for a retry that somebody asks for."""


TERMINAL_RUN_STATES = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
TERMINAL_TASK_STATES = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})

RUN_MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.SCHEDULED: frozenset({RunState.RUNNING, RunState.PAUSED, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {RunState.WAITING, RunState.PAUSED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.WAITING: frozenset({RunState.SCHEDULED, RunState.PAUSED, RunState.CANCELLED}),
    RunState.PAUSED: frozenset({RunState.SCHEDULED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}
"""Every legal move of a run; the only place that says so. Being taken over is not a move: the state stays running.
scheduled -> failed is a run whose dependency failed: it never starts."""

TASK_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset(
        {
            TaskState.RUNNING,
            TaskState.WAITING,
            TaskState.COMPLETED,
            TaskState.FAILED,
            TaskState.SKIPPED,
            TaskState.CANCELLED,
        }
    ),
    TaskState.RUNNING: frozenset(
        {
            TaskState.RUNNING,
            TaskState.RETRYING,
            TaskState.COMPLETED,
            TaskState.FAILED,
            TaskState.CANCELLED,
        }
    ),
    TaskState.RETRYING: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.WAITING: frozenset({TaskState.RETRYING, TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.SKIPPED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}
"""Every legal move of a task. running -> running is a new attempt after an interruption; pending -> completed takes
over a recorded output (rerun) or an empty for_each; pending -> failed is an expression that could not be evaluated."""

DELIVERY_MOVES: dict[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.ACCEPTED: frozenset({DeliveryState.STARTED, DeliveryState.FILTERED, DeliveryState.FAILED}),
    DeliveryState.STARTED: frozenset({DeliveryState.ACCEPTED}),
    DeliveryState.FILTERED: frozenset({DeliveryState.ACCEPTED}),
    DeliveryState.FAILED: frozenset({DeliveryState.ACCEPTED}),
}
"""Every legal move of a delivery. Back to accepted is a redelivery."""

DISPATCH_MOVES: dict[DispatchState, frozenset[DispatchState]] = {
    DispatchState.PENDING: frozenset({DispatchState.PENDING, DispatchState.SENDING, DispatchState.DEAD}),
    DispatchState.SENDING: frozenset(
        {DispatchState.SENDING, DispatchState.SENT, DispatchState.PENDING, DispatchState.DEAD}
    ),
    DispatchState.SENT: frozenset(),
    DispatchState.DEAD: frozenset({DispatchState.PENDING}),
}
"""Every legal move of a dispatch. sending -> sending is another server's try after a claim that ended; pending ->
pending is a retry now; to dead without a try is a receiver that wants nothing more; dead -> pending is a retry that
somebody asked for."""
