"""Answers cut at a number of characters, always valid JSON, always with the way to the rest.

A token is about four characters: 90,000 stay below the 25,000 tokens that hosts let a tool answer.
Characters are counted as the compact JSON of the answer has them. What names the subject, the cursor and `next` are
never cut: where these alone are longer than the number asked for (ids may have 128 characters), the answer is that
long.
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
RESOURCE_CHARS = 200_000
"""The longest output that its resource carries whole."""
_LEAST_TEXT = 64  # names of tasks are never longer
_NAME_CHARS = 24
_LEAST_PREVIEW = 20  # so that following `next` comes to an end
_CURSOR_CHARS = 40  # by which one cursor may be longer than another

_OFFSET = re.compile(r"text-(\d{1,12})")
_TEXT_PLACE = "text-"
_ID_CHARS = 200
_NEVER_CUT = frozenset(
    {"run_id", "flow_id", "child_run_id", "rerun_of", "task", "cursor", "next_page", "state", "type", "at", "code"}
)
# What an answer about a run or flow can do without, the least useful first.
_DISPENSABLE = (
    "framework",
    "priority",
    "duration_s",
    "started_at",
    "ended_at",
    "existing",
    "parent_run_id",
    "tags",
    "runs",
    "description",
    "latest_run",
    "rerun_of",
    "created_at",
    "inputs",
    "active",
    "failed_tasks",
    "reason",
    "note",
    "error",
)
_DISPENSABLE_OF_ROWS = ("agent", "duration_s", "started_at", "ended_at", "actor", "details", "error", "attempts")
_UNDER_WAY = {"failed": 0, "running": 1, "retrying": 2, "waiting": 3}


def offset_of(since: str) -> int | None:
    """The place in a text that `since` names (made by `cut_text`), or None where it is a journal's cursor."""
    match = _OFFSET.fullmatch(since)
    return int(match[1]) if match else None


def is_text_place(since: str) -> bool:
    """Whether `since` names a place in a text, were it a wrong one, and no place in the journal."""
    return since.startswith(_TEXT_PLACE)


def output_uri(run_id: str, task: str) -> str:
    """The resource with a task's whole output."""
    return f"flow://runs/{quote(run_id, safe='')}/outputs/{quote(task, safe='')}"


def _fitting(text: str, room: int) -> str:
    """The longest head of `text` whose JSON string has at most `room` characters (at least one character)."""
    head = text[: max(1, room)]
    while len(head) > 1 and (size := len(json.dumps(head, ensure_ascii=False))) > room:
        head = head[: max(1, len(head) * room // size - 1)]
    return head


def _slim(answer: dict[str, Any], max_chars: int, rows: str = "") -> None:
    """Drop what the answer can do without, one field after the other, until it fits, its `rows` not counted."""

    def fits() -> bool:
        return len(compact({name: value for name, value in answer.items() if name != rows})) <= max_chars

    for name in _DISPENSABLE:
        if fits():
            return
        if name == "created_at" and "run_id" not in answer:  # the answer is a flow, which always has it
            continue
        answer.pop(name, None)
    title = answer.get("name")
    if isinstance(title, str) and len(title) > _NAME_CHARS and not fits():
        answer["name"] = title[: _NAME_CHARS - 3] + "..."
    if ("output_truncated" in answer or "more_events" in answer) and not fits():  # there is another way to go on
        answer.pop("has_output", None)
        answer.pop("next", None)


def put_text(
    answer: dict[str, Any],
    key: str,
    text: str,
    max_chars: int,
    more: Callable[[str], Any],
    *,
    offset: int = 0,
    resource: str | None = None,
) -> None:
    """Put the JSON value that `text` holds into `answer[key]`, or where it does not fit a part of its text.

    The part is in `answer["output_truncated"]`: `{what, chars, from, shown, preview, next?, resource?}`; `more` makes
    `next`, the call for the part that follows, from the value of its `since`, and `resource` is where the whole is to
    be read, named where it is whole there. Beside the part the answer's own fields take at most half of the
    characters. Raises InvalidArguments for an offset past the end.
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
    _slim(answer, max_chars // 2)
    # Counted with the longest numbers that can stand in it.
    longest = more(f"{_TEXT_PLACE}{len(text)}")
    cut: dict[str, Any] = {"what": key, "chars": len(text), "from": offset, "shown": len(text), "preview": ""}
    answer["output_truncated"] = cut
    named = {"resource": resource} if resource is not None and len(text) <= RESOURCE_CHARS else {}
    room = max_chars - len(compact({**answer, "output_truncated": {**cut, "next": longest, **named}}))
    if room < _LEAST_PREVIEW and named:
        room += len(compact(named)) - 1
        named = {}
    if room < _LEAST_PREVIEW:
        before = len(compact(answer))
        _slim(answer, 0)
        room += before - len(compact(answer))
    preview = _fitting(text[offset : offset + max_chars], max(room, _LEAST_PREVIEW) + 2)  # its quotes are counted
    end = offset + len(preview)
    cut.update(shown=len(preview), preview=preview)
    if end < len(text):
        cut["next"] = more(f"{_TEXT_PLACE}{end}")
    cut.update(named)


def cut_events(answer: dict[str, Any], max_chars: int) -> None:
    """Keep the first events that fit; `cursor` then is the last one's, so that since=cursor goes on from there."""
    events = answer.get("events")
    if not events:
        return
    if len(compact(answer)) > max_chars:
        _slim(answer, max_chars // 2, "events")
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
    _slim(answer, max_chars // 2, "tasks")
    cut: dict[str, Any] = {
        "what": "tasks",
        "chars": len(compact(tasks)),
        "shown": len(tasks),
        "total": len(tasks),
        "next": f"task=NAME gives one, max_chars={MOST_CHARS} more, "
        f"flow://runs/{quote(str(answer['run_id']), safe='')} has all.",
    }
    room = max_chars - len(compact({**answer, "tasks": [], "output_truncated": cut}))
    urgent = sorted(range(len(tasks)), key=lambda index: _UNDER_WAY.get(tasks[index]["state"], 4))
    kept: set[int] = set()
    for index in urgent:
        room -= len(compact(tasks[index])) + 1
        if room < 0 and kept:
            break
        kept.add(index)
    answer["tasks"] = [tasks[index] for index in sorted(kept)]
    answer["output_truncated"] = {**cut, "shown": len(kept)}


def _shorten(value: Any, text_chars: int, items: int, key: str = "") -> Any:
    if isinstance(value, str):
        if key in _NEVER_CUT and len(value) <= _ID_CHARS:
            return value
        return value if len(value) <= text_chars else value[:text_chars] + f"... ({len(value)} characters)"
    if isinstance(value, list):
        return [_shorten(part, text_chars, items) for part in value[:items]]
    if isinstance(value, dict):
        return {name: _shorten(part, text_chars, items, name) for name, part in value.items()}
    return value


def _drop(answer: dict[str, Any], name: str) -> None:
    for rows in ("tasks", "events"):
        for row in answer.get(rows) or ():
            row.pop(name, None)


def _shorten_answer(answer: dict[str, Any], text_chars: int, items: int) -> dict[str, Any]:
    """The answer with its long parts shortened, but for the call to make now and the way to the rest."""
    shorter = {
        name: part if name in ("next", "output_truncated") else _shorten(part, text_chars, items, name)
        for name, part in answer.items()
    }
    shorter["truncated"] = f"Strings are cut at {text_chars} characters and lists at {items} items."
    return shorter


def bounded(answer: dict[str, Any], max_chars: int = MOST_CHARS) -> dict[str, Any]:
    """The answer with long strings and lists shortened until it fits, then without what it can do without;
    `truncated` then says so. Ids, cursors and `next` stay whole.

    The last resort, for answers that are short in all but strange cases.
    """
    if len(compact(answer)) <= max_chars:
        return answer
    text_chars, items = 4000, 500
    while True:
        shorter = _shorten_answer(answer, text_chars, items)
        if len(compact(shorter)) <= max_chars:
            return shorter
        if items == 1:
            shorter["truncated"] = "Long parts are cut or left out."
            _slim(shorter, max_chars)
            for name in _DISPENSABLE_OF_ROWS:
                if len(compact(shorter)) > max_chars:
                    _drop(shorter, name)
            return shorter
        text_chars, items = max(_LEAST_TEXT, text_chars // 2), max(1, items // 2)
