"""Whether a run that only waits gives its slot back meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..states import TaskState

if TYPE_CHECKING:
    from .run import RunExecution

PARK_AFTER_S = 5.0  # a run whose only timers are retries sooner than this keeps its slot: giving it back costs commits
PARK_AT_LEAST_S = 0.05  # a wait that is over sooner is sat out


def may_park(run: RunExecution, now: float) -> bool:
    """Whether nothing of the run or its sub-flows can move before some later time, and parking is worth its commits."""
    if run.starter.is_starved or run.tasks.are_busy:
        return False
    wake_at = run.wake_at()
    if wake_at is None or wake_at - now < PARK_AT_LEAST_S:
        return False
    children = run.subflows.live.values()
    if not all(child.is_idle and may_park(child, now) for child in children):
        return False
    soon = now + PARK_AFTER_S
    return bool(children) or any(
        unit.row.state is TaskState.WAITING or (unit.row.wake_at or 0) > soon for unit in run.tasks.live
    )
