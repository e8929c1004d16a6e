"""Names as Prefect allows them."""

from __future__ import annotations

import re

_BANNED = re.compile(r"[/%&<>]")


def prefect_name(text: str) -> str:
    """The nearest name that Prefect takes."""
    return _BANNED.sub("-", text)
