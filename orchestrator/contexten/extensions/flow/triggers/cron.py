"""Cron expressions and the times that they match, in any time zone.

Expressions are Debian cron's: five fields (minute, hour, day of month, month, day of week) with names, lists,
ranges and steps, besides `L` (the last), `LW` (the last weekday) and `MON#2`, as the library cronsim reads them, and
the nicknames `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly`.

Where clocks change, what cron(8) of Debian says holds:

- A job whose minute and hour both are numbers (`30 2 * * *`) runs once a day. A time that does not exist fires at the
  moment to which the clocks were put forward; a time that exists twice fires the first time.
- A job with a star at the start of either field (`*/15 * * * *`, `0 * * * *`, `*/10 2 * * *`) follows the clock on the
  wall: minutes that do not exist are left out, and those that exist twice fire twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_STEP = timedelta(days=1)  # no zone changes its clocks there and back within a day
_SECOND = timedelta(seconds=1)


def check_expression(expression: str) -> None:
    """Raises ValueError, with what is wrong, where the expression is none or never comes."""
    fields = _fields(expression)
    if len(fields.split()) != 5:
        raise ValueError(
            f"{expression!r} is no cron expression: write five fields (minute, hour, day of month, month, day of "
            f"week), such as '0 9 * * MON-FRI', or one of {', '.join(_NICKNAMES)}. For seconds take an interval."
        )
    try:
        is_possible = next(CronSim(fields, _SOME_DAY), None) is not None
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from None
    if not is_possible:
        raise ValueError(f"{expression!r} matches no day of the next 50 years")


def times(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """All times after `after`, in order, in UTC."""
    fields = _fields(expression)
    minute, hour, *_ = fields.split()
    after = after.astimezone(UTC)
    return _clock_times(fields, zone, after) if "*" in (minute[0], hour[0]) else _fixed_times(fields, zone, after)


def _fields(expression: str) -> str:
    return _NICKNAMES.get(expression.strip().lower(), expression)


def _fixed_times(fields: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    for time in CronSim(fields, after.astimezone(zone)):
        at = time.astimezone(UTC)
        if at > after:  # the second half of an hour that exists twice begins before its first half's times
            yield at


def _clock_times(fields: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Between two changes of a clock its times are those of a clock that is never changed."""
    start = after.replace(microsecond=0)
    local = start.astimezone(zone).replace(tzinfo=UTC)
    while True:
        shift, change = local - start, None
        for time in CronSim(fields, local):
            at = time - shift
            change = _first_change(zone, shift, start, at)
            if change is not None:
                break
            yield at
            start = at
        if change is None:  # no time is left
            return
        start = change - _SECOND  # the change's own second may match
        local = change.astimezone(zone).replace(tzinfo=UTC) - _SECOND


def _first_change(zone: tzinfo, shift: timedelta, start: datetime, end: datetime) -> datetime | None:
    """The first second in (start, end] in which the zone's clocks are not `shift` from UTC; None where they always
    are."""
    before, probe = start, start
    while probe < end:
        probe = min(probe + _STEP, end)
        if probe.astimezone(zone).utcoffset() != shift:
            break
        before = probe
    else:
        return None
    while probe - before > _SECOND:
        middle = before + (probe - before) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == shift:
            before = middle
        else:
            probe = middle
    return probe
