"""Rate limits of tools: at most so many attempts an interval. Pure: it is told the time, in seconds of one clock.

A token bucket (J. S. Turner, "New directions in communications", 1986) in its virtual scheduling form (ITU-T I.371):
a bucket that was left alone lets `requests` begin at once, then one each `interval_s / requests`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TEXT = re.compile(r"\s*([0-9]{1,9})\s*/\s*([0-9]+(?:\.[0-9]+)?)?\s*(ms|s|m|h)?\s*")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_INTERVAL_S = 86_400.0
_SLACK_S = 1e-6  # sums of floating point numbers: a token is never late for their sake


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `requests` in each `interval_s`, on the long run."""

    requests: int
    interval_s: float

    @classmethod
    def parse(cls, text: str) -> RateLimit:
        """Read `10/1s`, `100/m` or `1/500ms`; without a unit, seconds. Raises ValueError where it is nothing such."""
        match = _TEXT.fullmatch(text)
        if match is None or not (match[2] or match[3]):
            raise ValueError(f"{text!r} is no rate: write requests/interval, such as 10/1s, 100/m or 1/500ms")
        requests, interval_s = int(match[1]), float(match[2] or 1) * _UNITS_S[match[3] or "s"]
        if requests < 1 or not 0 < interval_s <= _MAX_INTERVAL_S:
            raise ValueError(f"{text!r}: requests are from 1, the interval is over 0 and at most a day")
        return cls(requests, interval_s)

    @property
    def spacing_s(self) -> float:
        """Between two tokens."""
        return self.interval_s / self.requests

    def next_token_at(self, full_at: float) -> float:
        """When a bucket that will be full again at that time has a token."""
        return full_at - (self.requests - 1) * self.spacing_s

    def full_after(self, full_at: float, now: float) -> float:
        """When that bucket will be full again, once a token is taken now."""
        return max(full_at, now) + self.spacing_s

    def __str__(self) -> str:
        return f"{self.requests}/{self.interval_s:g}s"


class RateLimits:
    """A bucket of tokens for each tool that has a limit; the tools without one are not its business."""

    def __init__(self, limits: Mapping[str, RateLimit]) -> None:
        self.limits = dict(limits)
        self._full_at = dict.fromkeys(limits, float("-inf"))
        """When each bucket will be full again."""

    def __bool__(self) -> bool:
        """Whether any tool has a limit."""
        return bool(self.limits)

    def next_token(self, tools: Iterable[str], now: float) -> tuple[str, float] | None:
        """The tool with a limit whose token comes last, and when; None where all of them have one now."""
        late: tuple[str, float] | None = None
        for tool in tools:
            limit = self.limits.get(tool)
            if limit is None:
                continue
            at = limit.next_token_at(self._full_at[tool])
            if at > now + _SLACK_S and (late is None or at > late[1]):
                late = tool, at
        return late

    def take(self, tools: Iterable[str], now: float) -> None:
        """Take a token of each tool that has a limit."""
        for tool in dict.fromkeys(tools):
            limit = self.limits.get(tool)
            if limit is not None:
                self._full_at[tool] = limit.full_after(self._full_at[tool], now)
