"""JSON as text for a model: compact, nothing escaped that need not be."""

from __future__ import annotations

import json
import math
from typing import Any


def compact(data: Any) -> str:
    """JSON without spaces between its parts, in Unicode."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def as_sent(data: Any) -> Any:
    """The same data with what JSON has no word for made text: NaN and infinities, lone surrogates, other types.

    For what a caller gave and an error shows again.
    """
    match data:
        case None | bool() | int():
            return data
        case float():
            return data if math.isfinite(data) else str(data)
        case str():
            return data.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {as_sent(str(key)): as_sent(value) for key, value in data.items()}
        case list() | tuple():
            return [as_sent(value) for value in data]
    return as_sent(str(data))
