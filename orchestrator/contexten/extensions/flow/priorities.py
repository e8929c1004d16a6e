"""Priorities of runs."""

from __future__ import annotations

from enum import IntEnum

from .errors import InvalidArguments, Issue


class FlowPriority(IntEnum):
    """Names for common priorities; any integer is accepted, lower is more urgent."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BACKGROUND = 4


def parse_priority(value: object) -> int:
    """A priority given as a number, a FlowPriority or its name; None is NORMAL. Raises InvalidArguments."""
    if value is None:
        return int(FlowPriority.NORMAL)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 1_000_000:
        return int(value)
    if isinstance(value, str):
        name = value.strip().upper()
        if name in FlowPriority.__members__:
            return int(FlowPriority[name])
    names = [member.name.lower() for member in FlowPriority]
    raise InvalidArguments(
        f"{value!r} is no priority.",
        next=f"Use a whole number (lower is more urgent) or one of {', '.join(names)}.",
        issues=[
            Issue(
                path="/priority",
                code="invalid_priority",
                message="a whole number or a name",
                expected=names,
                got=str(value)[:100],
            )
        ],
    )
