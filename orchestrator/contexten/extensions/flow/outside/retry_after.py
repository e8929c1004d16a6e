"""How long another server asks to be left alone."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from ..clock import Clock

_MAX_S = 30 * 24 * 3600.0


def retry_after(value: str | None, clock: Clock) -> float | None:
    """The seconds that a Retry-After header (a number, or a date) asks for; None where it asks for nothing."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,12}", value):
        return min(float(value), _MAX_S)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max(0.0, (at - clock.now()).total_seconds()), _MAX_S)
