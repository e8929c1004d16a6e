"""Answers cut at a number of characters, always valid JSON, always with the way to the rest.

A token is about four characters: 90,000 stay below the 25,000 tokens that hosts let a tool answer.
Characters are counted as the compact JSON of the answer has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten_tools.text import compact

DEFAULT_CHARS = 20_000
LEAST_CHARS = 500
MOST_CHARS = 90_000
_ENVELOPE_CHARS = 400  # what `output_truncated` costs besides its preview
_CURSOR_CHARS = 40  # by which one cursor may be longer than another

_OFFSET = re.compile(r"text-(\d{1,12})")
_UNDER_WAY = {"failed": 0, "running": 1, "retrying": 2, "waiting": 3}


def offset_of(since: str) -> int | None:
    """The place in a text that `since` names (made by `cut_text`), or None where it is a journal's cursor."""
    match = _OFFSET.fullmatch(since)
    return int(match[1]) if match else None


def output_uri(run_id: str, task: str) -> str:
    """The resource with a task's whole output."""
    return f"flow://runs/{quote(run_id, safe='')}/outputs/{quote(task, safe='')}"


def _fitting(text: str, room: int) -> str:
    """The longest head of `text` whose JSON string has at most `room` characters (at least one character)."""
    head = text[: max(1, room)]
    while len(head) > 1 and (size := len(json.dumps(head, ensure_ascii=False))) > room:
        head = head[: max(1, len(head) * room // size - 1)]
    return head


def put_text(
    answer: dict[str, Any], key: str, text: str, max_chars: int, more: Callable[[str], Any], *, offset: int = 0
) -> None:
    """Put the JSON value that `text` holds into `answer[key]`, or where it does not fit a part of its text.

    The part is in `answer["output_truncated"]`: `{what, chars, from, shown, preview, next?}`; `more` makes `next`, the
    call for the part that follows, from the value of its `since`. Raises InvalidArguments for an offset past the end.
    """
    room = max_chars - len(compact(answer)) - len(key) - 4
    if offset == 0 and len(text) <= room:
        answer[key] = json.loads(text)
        return
    if offset >= len(text):
        raise InvalidArguments(
            f"The {key} has {len(text)} characters; since= points past its end.",
            next="Call again without since.",
            issues=[Issue(path="/since", code="out_of_range", message=f"The {key} ends before this place.")],
        )
    preview = _fitting(text[offset:], room - _ENVELOPE_CHARS)
    end = offset + len(preview)
    cut: dict[str, Any] = {"what": key, "chars": len(text), "from": offset, "shown": len(preview), "preview": preview}
    if end < len(text):
        cut["next"] = more(f"text-{end}")
    answer["output_truncated"] = cut


def cut_events(answer: dict[str, Any], max_chars: int) -> None:
    """Keep the first events that fit; `cursor` then is the last one's, so that since=cursor goes on from there."""
    events = answer.get("events")
    if not events:
        return
    room = max_chars - len(compact({**answer, "events": [], "more_events": True})) - _CURSOR_CHARS
    kept = 0
    for event in events:
        room -= len(compact(event)) + 1
        if room < 0 and kept:
            break
        kept += 1
    if kept < len(events):
        answer["events"] = events[:kept]
        answer["more_events"] = True
        answer["cursor"] = events[kept - 1]["cursor"]


def cut_tasks(answer: dict[str, Any], max_chars: int) -> None:
    """Keep the tasks that fit, failed ones and those under way before the others, and say how to see the rest."""
    tasks = answer.get("tasks")
    if not tasks:
        return
    room = max_chars - len(compact({**answer, "tasks": []}))
    if len(compact(tasks)) <= room:
        return
    room -= _ENVELOPE_CHARS
    urgent = sorted(range(len(tasks)), key=lambda index: _UNDER_WAY.get(tasks[index]["state"], 4))
    kept: set[int] = set()
    for index in urgent:
        room -= len(compact(tasks[index])) + 1
        if room < 0 and kept:
            break
        kept.add(index)
    answer["tasks"] = [tasks[index] for index in sorted(kept)]
    answer["output_truncated"] = {
        "what": "tasks",
        "chars": len(compact(tasks)),
        "shown": len(kept),
        "total": len(tasks),
        "next": "Failed tasks and those under way come first. For one task call get_flow_status with task=NAME; for "
        f"all with max_chars={MOST_CHARS} or read the resource flow://runs/{quote(str(answer['run_id']), safe='')}.",
    }


def _shorten(value: Any, text_chars: int, items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= text_chars else value[:text_chars] + f"... ({len(value)} characters)"
    if isinstance(value, list):
        return [_shorten(part, text_chars, items) for part in value[:items]]
    if isinstance(value, dict):
        return {key: _shorten(part, text_chars, items) for key, part in value.items()}
    return value


def bounded(answer: dict[str, Any], max_chars: int = MOST_CHARS) -> dict[str, Any]:
    """The answer with long strings and lists shortened until it fits; `truncated` then says so.

    The last resort, for answers that are short in all but strange cases.
    """
    if len(compact(answer)) <= max_chars:
        return answer
    text_chars, items = 4000, 500
    while True:
        shorter: dict[str, Any] = _shorten(answer, text_chars, items)
        shorter["truncated"] = f"Strings are cut at {text_chars} characters and lists at {items} items."
        if len(compact(shorter)) <= max_chars or items <= 1:
            return shorter
        text_chars, items = max(80, text_chars // 2), items // 2
