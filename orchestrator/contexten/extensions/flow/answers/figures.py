"""Figures about what happened lately: which attempts failed, for what reason and by whom; how long runs waited."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from ..clock import Clock, iso
from ..scheduling.estimates import percentile
from ..store import Store
from ..store.sql import SQL

ENTRIES = 20_000  # of the journal, the latest: reading them takes some milliseconds, however long the journal is
RUNS = 1000  # of those under way, and of those that ended last
NAMED = 20  # agents or tools, those with the most failures


class Figures:
    """Reads them from the store; each costs the same however large that is."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def failures(self) -> tuple[dict[str, int], dict[str, Any]]:
        """Of the latest journal entries: failed runs by kind; and attempts, how many of them failed, and these by kind,
        by agent and by tool. An attempt counts for each tool that had a part in it. Raises StoreError."""
        runs: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        agents: dict[str, Counter[str]] = {}
        tools: dict[str, Counter[str]] = {}
        attempts = 0
        for row in await self._store.rows(SQL["failure_figures"], (ENTRIES,)):
            kind, number = row["kind"] or "unknown", row["number"]
            if row["type"] == "task.running":
                attempts += number
            elif row["type"] == "run.failed":
                runs[kind] += number
            else:
                kinds[kind] += number
                agents.setdefault(row["agent"], Counter())[kind] += number
                for tool in json.loads(row["tools"]):
                    tools.setdefault(tool, Counter())[kind] += number
        since = await self._store.row(SQL["entry_time"], (ENTRIES,))
        return dict(runs), {
            "since": iso(since[0]) if since is not None else None,
            "attempts": attempts,
            "failed": kinds.total(),
            "by_kind": dict(kinds),
            "by_agent": _worst(agents),
            "by_tool": _worst(tools),
        }

    async def waits(self) -> dict[str, float | int | None]:
        """How long runs waited from their submission to their start, dependencies included: of those under way and
        those that ended last. And for how long the oldest of the queue has waited. In seconds. Raises StoreError."""
        waits = sorted(max(0.0, row[0]) for row in await self._store.rows(SQL["waits"], (RUNS,)))
        oldest = await self._store.row(SQL["oldest_queued"])
        return {
            "runs": len(waits),
            "mean_s": round(sum(waits) / len(waits), 4) if waits else None,
            "p95_s": round(percentile(waits, 0.95), 4) if waits else None,
            "oldest_queued_s": round(max(0.0, self._clock.timestamp() - oldest[0]), 3) if oldest is not None else None,
        }


def _worst(failures: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Those with the most failures first."""
    names = sorted(failures, key=lambda name: (-failures[name].total(), name))
    return {name: dict(failures[name]) for name in names[:NAMED]}
