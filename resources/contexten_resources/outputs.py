"""A task's output as a resource: whole, or where it is long its beginning and the way to the rest."""

from __future__ import annotations

import json
from typing import Any

MOST_CHARS = 200_000
"""The longest output that is read whole: a host puts what it reads before a model."""
_PART_CHARS = 90_000  # the most that get_flow_status answers in one call


def output_text(run_id: str, task: str, text: str) -> str:
    """The JSON text of an output, or where it is longer than MOST_CHARS an object that has its beginning.

    The object is `{output_truncated: {what, chars, from, shown, preview, next}}`, the same as get_flow_status answers,
    and has at most MOST_CHARS characters itself; `next` is the call for the part that follows.
    """
    if len(text) <= MOST_CHARS:
        return text
    room = MOST_CHARS - len(_cut(run_id, task, text, 0)) - 2 * len(str(MOST_CHARS))  # for the place, named twice
    shown = room
    while (size := len(json.dumps(text[:shown], ensure_ascii=False))) > room:
        shown = min(shown - 1, shown * room // size)
    return _cut(run_id, task, text, shown)


def _cut(run_id: str, task: str, text: str, shown: int) -> str:
    arguments: dict[str, Any] = {"run_id": run_id, "detail": "output", "task": task}
    cut = {
        "what": "output",
        "chars": len(text),
        "from": 0,
        "shown": shown,
        "preview": text[:shown],
        "next": {
            "tool": "get_flow_status",
            "arguments": {**arguments, "since": f"text-{shown}", "max_chars": _PART_CHARS},
        },
    }
    return json.dumps({"output_truncated": cut}, ensure_ascii=False, separators=(",", ":"))
