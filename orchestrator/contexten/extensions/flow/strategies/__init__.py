"""Scheduling strategies: which queued run starts next.

A strategy is an order over keys that are fixed when a run is queued, so that a decision costs one step in an index
however long the queue is.
"""

from __future__ import annotations

import difflib
from enum import StrEnum

from ..errors import InvalidArguments, Issue, NotAvailableYet
from .fifo import Fifo
from .priority import Priority
from .protocol import Strategy


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


AVAILABLE = (SchedulingStrategy.FIFO, SchedulingStrategy.PRIORITY)
"""The strategies that this version has."""


def strategy_named(name: object, *, aging_interval_s: float) -> Strategy:
    """The strategy of that name. Raises InvalidArguments where there is none, NotAvailableYet for a later version's."""
    try:
        member = SchedulingStrategy(str(name))
    except ValueError:
        known = [str(strategy) for strategy in AVAILABLE]
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
                    suggestion=_nearest(str(name), known),
                )
            ],
        ) from None
    if member is SchedulingStrategy.FIFO:
        return Fifo()
    if member is SchedulingStrategy.PRIORITY:
        return Priority(aging_interval_s)
    raise NotAvailableYet(
        f"The strategy {member} is not available in this version; there are {', '.join(AVAILABLE)}.",
        next="Call set_strategy(strategy='priority') for an order by priority.",
    )


def _nearest(name: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower(), known, 1)), None)


__all__ = ["AVAILABLE", "Fifo", "Priority", "SchedulingStrategy", "Strategy", "strategy_named"]
