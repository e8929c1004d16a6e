"""The JSON Schema of definitions, as text."""

from __future__ import annotations

import json
from functools import cache


@cache
def schema_text() -> str:
    """The published JSON Schema of the format, compact."""
    from contexten.extensions.flow.definition import json_schema

    return json.dumps(json_schema(), ensure_ascii=False, separators=(",", ":"))
