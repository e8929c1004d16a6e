"""How much a model is shown of something long."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..agents.protocol import Json

MAX_OUTPUT = 20_000  # characters of one earlier output in a prompt
MAX_OUTPUTS = 60_000  # characters of all of them
MAX_TOOL_OUTPUT = 50_000  # characters of what a tool gave: the model asked for it


def as_text(value: Json, *, indent: int | None = None) -> str:
    """The value as a model reads it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=indent)


def cut(text: str, limit: int) -> str:
    """The text, at most `limit` characters of it; what is not shown is told."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters are not shown]"


def cut_all(values: Mapping[str, Json]) -> dict[str, Json]:
    """The values, those that are long, alone or together with those before them, as text that is cut."""
    left, shown = MAX_OUTPUTS, {}
    for name, value in values.items():
        text = as_text(value)
        limit = max(0, min(MAX_OUTPUT, left))
        left -= len(text)
        shown[name] = value if len(text) <= limit else cut(text, limit)
    return shown
