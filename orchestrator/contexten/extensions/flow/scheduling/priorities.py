"""Priorities of runs."""

from __future__ import annotations

import re
from enum import IntEnum

from ..errors import InvalidArguments, Issue

MAX_PRIORITY = 1_000_000
"""How far a priority may be from 0."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")


class FlowPriority(IntEnum):
    """Names for common priorities; any integer from -MAX_PRIORITY to MAX_PRIORITY is accepted, lower is more urgent."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BACKGROUND = 4


def parse_priority(value: object) -> int:
    """A priority given as a number (or its text), a FlowPriority or its name; None is NORMAL. Raises
    InvalidArguments."""
    if value is None:
        return int(FlowPriority.NORMAL)
    if isinstance(value, str):
        name = value.strip().upper()
        if name in FlowPriority.__members__:
            return int(FlowPriority[name])
        if _NUMBER.fullmatch(name):
            value = int(name)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_PRIORITY:
        return int(value)
    names = [member.name.lower() for member in FlowPriority]
    bounds = f"a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}"
    raise InvalidArguments(
        f"The priority {str(value)[:100]!r} is none: it is {bounds} or a name.",
        next=f"Use {bounds} (lower is more urgent) or one of {', '.join(names)}.",
        issues=[
            Issue(
                path="/priority",
                code="invalid_priority",
                message=f"{bounds} or a name",
                expected=names,
                got=str(value)[:100],
            )
        ],
    )
