"""A span of time, as callers name it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from ..clock import Clock, iso
from ..errors import InvalidArguments, Issue

Time = datetime | str | float | None
"""A time: ISO 8601 text or a datetime (local where it has no zone), text such as `24h` or `7d` for so long ago, or
seconds since the epoch."""

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `since` to before `until`, in seconds since the epoch."""

    since: float
    """0: from the beginning."""
    until: float
    """Infinity: until now."""

    @classmethod
    def of(cls, since: Time, until: Time, clock: Clock) -> Span:
        """All where neither is given. Raises InvalidArguments with the place of what is no time, or of a span that is
        empty."""
        now = clock.timestamp()
        start = 0.0 if since is None else _parse("since", since, now)
        end = inf if until is None else _parse("until", until, now)
        if start >= end:
            raise InvalidArguments(
                f"since ({iso(start)}) must be before until ({iso(end)}).",
                issues=[Issue(path="/since", code="out_of_range", message="before until", got=str(since)[:100])],
            )
        return cls(since=start, until=end)


def _parse(name: str, value: Time, now: float) -> float:
    at: float | None = None
    with suppress(ValueError, OverflowError):  # of years that no clock can tell
        if isinstance(value, datetime):
            at = value.timestamp()
        elif isinstance(value, str):
            ago = _AGO.fullmatch(value.strip())
            at = now - int(ago[1]) * _UNITS_S[ago[2]] if ago else datetime.fromisoformat(value.strip()).timestamp()
        elif isinstance(value, int | float) and not isinstance(value, bool):
            at = datetime.fromtimestamp(value, UTC).timestamp()
    if at is None:
        raise InvalidArguments(
            f"{name} must be a time: ISO 8601, such as 2030-01-31T18:00:00Z, or so long ago, such as 24h or 7d.",
            issues=[Issue(path=f"/{name}", code="wrong_type", message="a time", got=str(value)[:100])],
        )
    return max(0.0, at)
