"""Scheduling strategies: which queued run starts next.

A strategy is an order over keys that are fixed when a run is queued, so that a decision costs one step in an index
however long the queue is, and a rule of admission over the head of that order. All are pure: the scheduler decides by
them, and the simulator replays by them.
"""

from __future__ import annotations

from enum import StrEnum

from ..errors import InvalidArguments, Issue
from ..nearest import nearest_name
from .deadline_aware import DeadlineAware, slack_s
from .fifo import Fifo
from .load_balanced import LoadBalanced, least_loaded
from .priority import Priority
from .protocol import AgentLoad, QueuedRun, RunningRun, Situation, Strategy
from .resource_aware import ResourceAware


class SchedulingStrategy(StrEnum):
    """The strategies by name; any case is accepted."""

    FIFO = "fifo"
    PRIORITY = "priority"
    RESOURCE_AWARE = "resource_aware"
    LOAD_BALANCED = "load_balanced"
    DEADLINE_AWARE = "deadline_aware"

    @classmethod
    def _missing_(cls, value: object) -> SchedulingStrategy | None:
        name = str(value).strip().lower().replace("-", "_")
        return next((member for member in cls if member.value == name), None)


def strategy_named(name: object, *, aging_interval_s: float) -> Strategy:
    """The strategy of that name. Raises InvalidArguments where there is none."""
    try:
        member = SchedulingStrategy(str(name))
    except ValueError:
        known = [str(strategy) for strategy in SchedulingStrategy]
        raise InvalidArguments(
            f"There is no strategy {name!r}; there are {', '.join(known)}.",
            next="Call set_strategy with one of them.",
            issues=[
                Issue(
                    path="/strategy",
                    code="unknown_strategy",
                    message="no such strategy",
                    expected=known,
                    got=str(name)[:100],
                    suggestion=nearest_name(str(name).lower(), known),
                )
            ],
        ) from None
    match member:
        case SchedulingStrategy.FIFO:
            return Fifo()
        case SchedulingStrategy.PRIORITY:
            return Priority(aging_interval_s)
        case SchedulingStrategy.RESOURCE_AWARE:
            return ResourceAware(aging_interval_s)
        case SchedulingStrategy.LOAD_BALANCED:
            return LoadBalanced(aging_interval_s)
        case SchedulingStrategy.DEADLINE_AWARE:
            return DeadlineAware()


__all__ = [
    "AgentLoad",
    "DeadlineAware",
    "Fifo",
    "LoadBalanced",
    "Priority",
    "QueuedRun",
    "ResourceAware",
    "RunningRun",
    "SchedulingStrategy",
    "Situation",
    "Strategy",
    "least_loaded",
    "slack_s",
    "strategy_named",
]
