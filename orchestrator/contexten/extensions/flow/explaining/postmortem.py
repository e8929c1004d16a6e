"""Why a run failed: its root task, what recovery did, whether its flow's history knows that, and what to do next."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from ..definition import Plan
from ..recovery.kinds import TIMEOUT
from ..recovery.retry import RetryPolicy
from ..store import Store
from ..store.records import UPSTREAM
from ..store.sql import SQL
from ..views import RunView, TaskView
from .remedies import Remedies

HISTORY = 200  # of the flow's latest runs: older ones tell less
DEPENDENCY_FAILED = "dependency_failed"


class Postmortem:
    """Reads what the journal and the state tables say of failed runs."""

    def __init__(self, store: Store, default_retry: Callable[[], RetryPolicy]) -> None:
        """`default_retry` answers the policy of tasks that state none."""
        self._store = store
        self._default_retry = default_retry

    async def of(self, run: RunView, tasks: list[TaskView], plan: Plan) -> tuple[dict[str, Any], str, list[str]]:
        """The failure as data, in sentences, and the calls to make now, the likeliest first."""
        error = run.error
        told = f"{error.kind}: {error.message}" if error else "for a reason that was not recorded"
        latest = await self._store.row(SQL["read_flow"], (None, run.flow_id))
        version = int(latest["version"]) if latest is not None else None
        remedies = Remedies(run=run, plan=plan, version=version, default_retry=self._default_retry())
        row = None
        if error is not None and error.task is not None:
            row = await self._store.row(SQL["read_failed_task"], (run.run_id, error.task))
        if row is not None:
            failure = await self._root(run, row)
            summary = f"Failed in task {row['task']}: {told}"
            if row["attempts"] > 1:
                summary += f" (after {row['attempts']} attempts)"
            summary = _ended(summary) + _of_history(failure["history"])
            root = next((task for task in tasks if task.name == row["task"]), None)
            if root is not None and root.child_run_id is not None:
                following = [f"explain_flow(run_id={root.child_run_id!r})"]
            else:
                following = remedies.of_task(row["task"], failure)
        else:
            failure, following = await self._of_whole(run, remedies, latest)
            summary = f"Failed: {told}"
            if "dependencies" in failure:
                summary = f"{_ended(summary)} A retry does not wait for it: see to it first."
        skipped = [task.name for task in tasks if task.state == "skipped" and (task.reason or "").startswith(UPSTREAM)]
        if skipped:
            failure["skipped"] = skipped
        undone = {task.name: task.state for task in tasks if task.on_failure_of is not None and task.state != "skipped"}
        if undone:
            failure["compensation"] = undone
        return failure, summary, following

    async def _of_whole(
        self, run: RunView, remedies: Remedies, latest: sqlite3.Row | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Of a run that failed as a whole, not by one of its tasks."""
        if run.error is None:
            return {}, [f"get_flow_status(run_id={run.run_id!r}, detail='events')"]
        failure: dict[str, Any] = run.error.data()
        if run.error.kind == DEPENDENCY_FAILED:
            to_blame = [
                {"id": row["on_id"], "run_id": row["on_run_id"], "state": row["ended"]}
                for row in await self._store.rows(SQL["read_dependencies"], (run.run_id,))
                if row["ended"] in ("failed", "cancelled") and row["on_failure"] == "fail"
            ]
            failure["dependencies"] = to_blame
            return failure, remedies.of_dependencies([dependency["run_id"] for dependency in to_blame])
        if run.error.kind == TIMEOUT:
            row = await self._store.row(SQL["read_run"], (run.run_id,))
            definition = json.loads(latest["definition"]) if latest is not None else None
            return failure, remedies.of_time_limit(row["timeout_s"] if row is not None else None, definition)
        return failure, remedies.of_output(run.error.message)

    async def _root(self, run: RunView, row: sqlite3.Row) -> dict[str, Any]:
        error = json.loads(row["error"])
        error.pop("task", None)
        found: dict[str, Any] = {"root_task": row["task"], "attempts": row["attempts"], **error}
        item = None
        if row["item"] >= 0:
            item = found["item"] = row["item"]
        steps = await self._store.rows(SQL["recovery_steps"], (run.run_id, row["task"], item))
        if steps:
            found["recovery"] = [{"attempt": step["attempt"], "did": json.loads(step["did"])} for step in steps]
        found["history"] = await self._history(run, row["task"], error.get("kind", ""))
        return found

    async def _history(self, run: RunView, task: str, kind: str) -> dict[str, int]:
        row = await self._store.row(SQL["failure_history"], (run.flow_id, run.run_id, task, kind, HISTORY))
        names = ("runs", "failed", "mended_by_retry", "mended_by_rerun")
        return {name: int(row[name] or 0) if row is not None else 0 for name in names}


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _of_history(history: dict[str, int]) -> str:
    """What the flow's other runs say about the same failure."""
    if not history["runs"]:
        return ""
    seen = history["failed"] + history["mended_by_retry"]
    if not seen:
        return f" None of the flow's {history['runs']} other recent runs had this failure."
    mended = history["mended_by_retry"] + history["mended_by_rerun"]
    return (
        f" Of the flow's {history['runs']} other recent runs {seen} had the same failure: a retry mended it"
        f" {mended} times."
    )
