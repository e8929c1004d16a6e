"""JSON as text for a model: compact, nothing escaped that need not be."""

from __future__ import annotations

import json
from typing import Any


def compact(data: Any) -> str:
    """JSON without spaces between its parts, in Unicode."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
