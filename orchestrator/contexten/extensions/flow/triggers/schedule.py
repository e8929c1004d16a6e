"""When a schedule fires: decided from its configuration and two times, without a clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

from .configs import CatchUp, CronConfig, IntervalConfig, OnceConfig, ScheduleConfig
from .cron import times

TICK = "tick"
"""The type of a schedule's events."""

MAX_CAUGHT_UP = 100
"""Times that `catch_up: all` makes up for at most: the last ones."""

PUNCTUAL = timedelta(minutes=1)
"""A time that passed no longer ago is late, as every time is a little, and was not missed."""

_MAX_COUNTED = 1000  # an hour of downtime has 60 minutes, a year 525,600: nobody needs the exact number
_FIRST_LOOK = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a schedule does now."""

    fire: tuple[datetime, ...] = ()
    """The planned times to fire for, in order; UTC."""
    missed: int = 0
    """Planned times that passed and are not made up for, counted among the first 1,000."""
    next: datetime | None = None
    """The planned time after those; UTC. None: it never fires again."""


def planned_id(planned: datetime) -> str:
    """A planned time as its event's id."""
    return planned.astimezone(UTC).isoformat()


def tick_payload(planned: datetime) -> dict[str, Any]:
    """What a schedule's event says."""
    return {"planned_at": planned_id(planned)}


def next_after(config: ScheduleConfig, after: datetime) -> datetime | None:
    """The first planned time after `after`, in UTC; None where there is none.

    An interval without `start_at` counts from `after`.
    """
    return next(_times(config, after), None)


def due(config: ScheduleConfig, planned: datetime, now: datetime) -> Due:
    """What to do at `now`, where `planned` is the earliest planned time that has not fired."""
    planned, now = planned.astimezone(UTC), now.astimezone(UTC)
    if planned > now:
        return Due(next=planned)
    if isinstance(config, IntervalConfig):
        config = config.model_copy(update={"start_at": planned})  # every planned time is as good to count from
    before = planned - _MICROSECOND
    passed = sum(1 for _ in islice(_until(config, before, now), _MAX_COUNTED))
    last = _last(config, before, now)
    match config.catch_up:
        case CatchUp.ALL:
            fire = last
        case CatchUp.LATEST:
            fire = last[-1:]
        case CatchUp.NONE:
            fire = tuple(time for time in last[-1:] if now - time <= PUNCTUAL)
    return Due(fire=fire, missed=passed - len(fire), next=next_after(config, now))


def _last(config: ScheduleConfig, before: datetime, now: datetime) -> tuple[datetime, ...]:
    """The last times in (before, now], without walking through years of them."""
    look = _FIRST_LOOK
    while True:
        since = max(before, now - look)
        found = deque(_until(config, since, now), maxlen=MAX_CAUGHT_UP)
        if len(found) == MAX_CAUGHT_UP or since == before:
            return tuple(found)
        look *= 4


def _until(config: ScheduleConfig, after: datetime, now: datetime) -> Iterator[datetime]:
    return takewhile(lambda time: time <= now, _times(config, after))


def _times(config: ScheduleConfig, after: datetime) -> Iterator[datetime]:
    """All planned times after `after`, in order, in UTC."""
    after = after.astimezone(UTC)
    match config:
        case CronConfig():
            yield from times(config.expression, config.zone, after)
        case IntervalConfig(every_s=every_s, start_at=start_at):
            step = timedelta(seconds=every_s)
            time = after + step if start_at is None else start_at
            if time <= after:
                time += ((after - time) // step + 1) * step
            while True:
                yield time
                time += step
        case OnceConfig(at=at) if at > after:
            yield at
