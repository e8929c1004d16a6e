"""What ended over a span of time: how many, how well, how long it took and waited, what it cost."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Literal, get_args

from ..answers.reading import Answers
from ..clock import Clock, iso
from ..errors import InvalidArguments, Issue
from ..nearest import checked_choice
from ..store import Store
from ..store.sql import SQL
from .exporting import Export, ExportFormat, exported
from .span import Span, Time
from .views import HistoryRow, HistoryView

By = Literal["flow", "agent", "tool", "day", "kind"]
"""What history is grouped by; a kind is one of errors, of the runs that failed with it."""

MOST_RUNS = 100_000  # of one report, those that ended last: about a second of a reader of its own
MOST_TASKS = 200_000  # the same, where tasks are counted
MOST_ROWS = 500


class History:
    """Reads it from the store, on a connection where that holds no other question up."""

    def __init__(self, store: Store, answers: Answers, clock: Clock) -> None:
        self._store = store
        self._answers = answers
        self._clock = clock

    async def report(
        self,
        by: By = "flow",
        since: Time = None,
        until: Time = None,
        *,
        flow_id: str | None = None,
        limit: int = 50,
    ) -> HistoryView:
        """What ended from `since` to `until` (all, until now), of one flow or of all, in at most `limit` rows.

        A run counts once: what its sub-flows' tasks tried again and what they cost is its own. By agent a task counts
        to the one that tried last; by tool to each tool that it requires. Only the last 100,000 runs (200,000 tasks)
        of the span are looked at. Raises InvalidArguments, FlowNotFound, StoreError.
        """
        checked_choice("by", by, get_args(By))
        if not 1 <= limit <= MOST_ROWS:
            raise InvalidArguments(
                f"limit is {limit}; it goes from 1 to {MOST_ROWS}.",
                issues=[Issue(path="/limit", code="out_of_range", message=f"1 to {MOST_ROWS}", got=limit)],
            )
        span = await self._span(since, until, flow_id)
        asked = {
            "by": by,
            "since": span.since,
            "until": span.until,
            "flow_id": flow_id,
            "limit": limit,
            "most": MOST_RUNS,
            "most_tasks": MOST_TASKS,
        }
        query = "history_of_tasks" if by in ("agent", "tool") else "history_of_runs"
        rows = await self._store.survey(SQL[query], asked)
        return HistoryView(
            by=by,
            since=iso(span.since) if since is not None else None,
            until=iso(span.until) if until is not None else None,
            flow_id=flow_id,
            rows=[_row(row) for row in rows],
            is_cut=True if rows and rows[0]["is_cut"] else None,
        )

    async def export(
        self,
        what: Export,
        format: ExportFormat = "jsonl",
        since: Time = None,
        until: Time = None,
        *,
        flow_id: str | None = None,
    ) -> AsyncIterator[str]:
        """Runs submitted, or journal entries made, from `since` to `until`: whole lines of text, oldest first, a page
        at a time, with the columns RUN_COLUMNS or EVENT_COLUMNS. What comes while it is read is left out.

        Arguments are checked before the first page: `async for text in await history.export(...)`. Raises
        InvalidArguments, FlowNotFound; with a page StoreError.
        """
        checked_choice("what", what, get_args(Export))
        checked_choice("format", format, get_args(ExportFormat))
        span = await self._span(since, until, flow_id)
        return exported(self._store, what, format, span, flow_id)

    async def _span(self, since: Time, until: Time, flow_id: str | None) -> Span:
        if flow_id is not None and await self._store.row(SQL["flow_version"], (flow_id,)) is None:
            raise await self._answers.no_flow(flow_id)
        return Span.of(since, until, self._clock)


def _row(row: sqlite3.Row) -> HistoryRow:
    names = row.keys()
    ended = row["completed"] + row["failed"]
    failures: dict[str, int] = json.loads(row["failures"] or "{}")
    return HistoryRow(
        key=row["key"],
        **{name: row[name] for name in ("runs", "tasks", "attempts") if name in names},
        **{
            name: row[name] for name in ("completed", "failed", "cancelled", "retries", "input_tokens", "output_tokens")
        },
        **{name: _rounded(row[name]) for name in ("p50_s", "p95_s", "wait_p50_s", "wait_p95_s")},
        success_rate=round(row["completed"] / ended, 4) if ended else None,
        failures=dict(sorted(failures.items(), key=lambda entry: (-entry[1], entry[0]))),
        cost_usd=round(row["cost_usd"], 6) if row["cost_usd"] is not None else None,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
