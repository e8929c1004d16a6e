"""Runs and journal entries as text for other programs: JSON Lines and CSV, a page at a time."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Literal

from ..clock import iso
from ..store import Store
from ..store.sql import SQL
from .span import Span

Export = Literal["runs", "events"]
ExportFormat = Literal["jsonl", "csv"]

RUN_COLUMNS = (
    "run_id", "flow_id", "version", "name", "state", "framework", "priority", "created_at", "started_at", "ended_at",
    "wait_s", "duration_s", "completed", "total", "retries", "error_kind", "error_message", "reason", "rerun_of",
    "parent_run_id", "parent_task", "input_tokens", "output_tokens", "cost_usd",
)  # fmt: skip
"""Of an exported run, sub-flows' included (those have a parent_run_id). Times are ISO 8601 in UTC; `wait_s` goes from
the submission to the start, `duration_s` to the end; `completed` of `total` tasks. Inputs and outputs are left out."""

EVENT_COLUMNS = ("seq", "at", "type", "run_id", "flow_id", "task", "item", "attempt", "actor", "data")
"""Of an exported entry of the journal; `data` is JSON, in a CSV its text."""

PAGE = 1000  # rows at a time: what an export holds in memory
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms


async def exported(
    store: Store,
    what: Export,
    format: ExportFormat,
    span: Span,
    flow_id: str | None,
) -> AsyncIterator[str]:
    """The pages, each of whole lines. Raises StoreError."""
    row, columns = (_run, RUN_COLUMNS) if what == "runs" else (_event, EVENT_COLUMNS)
    last = await store.row(SQL["last_run" if what == "runs" else "last_event"])
    asked = {
        "after": 0,
        "last": int(last[0]) if last else 0,
        "since": span.since,
        "until": span.until,
        "flow_id": flow_id,
        "page": PAGE,
    }
    if format == "csv":
        yield _csv([columns])
    is_full = True
    while is_full:
        found = await store.survey(SQL[f"export_{what}"], asked)
        is_full = len(found) == PAGE
        if not found:
            break
        asked["after"] = found[-1]["seq"]
        rows = [row(entry) for entry in found]
        if format == "csv":
            yield _csv([_cell(entry[name]) for name in columns] for entry in rows)
        else:
            yield "".join(_line(entry, columns) for entry in rows)


def _run(row: sqlite3.Row) -> dict[str, Any]:
    entry = dict(row)
    created, started, ended = row["created_at"], row["started_at"], row["ended_at"]
    entry["wait_s"] = _seconds(created, started)
    entry["duration_s"] = _seconds(started, ended)
    for name in ("created_at", "started_at", "ended_at"):
        entry[name] = iso(row[name])
    return entry


def _seconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 3)


def _event(row: sqlite3.Row) -> dict[str, Any]:
    return {**row, "at": iso(row["at"])}


def _line(entry: dict[str, Any], columns: tuple[str, ...]) -> str:
    told = {name: entry[name] for name in columns if entry[name] is not None}
    data = told.pop("data", None)  # JSON text already, of one line
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return f"{text}\n" if data is None else f'{text[:-1]},"data":{data}}}\n'


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)  # RFC 4180
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that could be one gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
