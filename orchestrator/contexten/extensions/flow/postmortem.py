"""Why a run failed: its root task, what recovery did, whether its flow's history knows that, and what to do next."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from .definition import Plan, TaskNode
from .recovery.kinds import AGENT_FAILURE, INTERRUPTED, NETWORK, RATE_LIMIT, RESOURCE, TIMEOUT
from .store import Store
from .store.records import UPSTREAM
from .store.sql import SQL
from .views import RunView, TaskView

HISTORY = 200  # of the flow's latest runs: older ones tell less
PASSING = frozenset({TIMEOUT, NETWORK, RATE_LIMIT, RESOURCE, AGENT_FAILURE, INTERRUPTED})
"""Kinds whose cause may be gone by the next attempt."""


class Postmortem:
    """Reads what the journal and the state tables say of failed runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, run: RunView, tasks: list[TaskView], plan: Plan) -> tuple[dict[str, Any], str, list[str]]:
        """The failure as data, in sentences, and the calls to make now, the likeliest first."""
        error = run.error
        told = f"{error.kind}: {error.message}" if error else "for a reason that was not recorded"
        failure: dict[str, Any] = {}
        skipped = [task.name for task in tasks if task.state == "skipped" and (task.reason or "").startswith(UPSTREAM)]
        row = await self._store.row(SQL["read_failed_task"], (run.run_id, error.task if error else None))
        if row is not None:
            failure = await self._root(run, row)
        if skipped:
            failure["skipped"] = skipped
        undone = {task.name: task.state for task in tasks if task.on_failure_of is not None and task.state != "skipped"}
        if undone:
            failure["compensation"] = undone
        if row is None:
            return failure, f"Failed: {told}", _repairs(run, error.kind if error else "", None, None, {})
        summary = f"Failed in task {row['task']}: {told}"
        if row["attempts"] > 1:
            summary += f" (after {row['attempts']} attempts)"
        summary = _ended(summary) + _of_history(failure["history"])
        root = next((task for task in tasks if task.name == row["task"]), None)
        if root is not None and root.child_run_id is not None:
            return failure, summary, [f"explain_flow(run_id={root.child_run_id!r})"]
        following = _repairs(
            run, failure["kind"], plan.tasks.get(row["task"]), await self._version(run.flow_id), failure["history"]
        )
        return failure, summary, following

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

    async def _version(self, flow_id: str) -> int | None:
        head = await self._store.row(SQL["flow_head"], (flow_id,))
        return int(head[0]) if head is not None else None


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


def _repairs(run: RunView, kind: str, node: TaskNode | None, version: int | None, history: dict[str, int]) -> list[str]:
    retry = f"control_flow(run_id={run.run_id!r}, action='retry')"
    if version is not None and version > run.version:
        newer = f"control_flow(run_id={run.run_id!r}, action='retry', version={version})"
        return [newer, retry] if kind not in PASSING else [retry, newer]
    if kind in PASSING:
        mend = _more_patience(run, kind, node, version)
        is_hopeless = history.get("failed", 0) > 1 and not (history["mended_by_retry"] or history["mended_by_rerun"])
        return [*mend, retry] if is_hopeless else [retry, *mend]
    calls = [f"get_flow_status(run_id={run.run_id!r}, detail='events', task={node.name!r})"] if node is not None else []
    path = "/..." if node is None else f"{node.path}/parameters"
    calls.append(f"update_flow(flow_id={run.flow_id!r}, patch=[{{'op': 'replace', 'path': {path!r}, 'value': ...}}])")
    if version is not None:
        calls.append(f"control_flow(run_id={run.run_id!r}, action='retry', version={version + 1})")
    return calls


def _more_patience(run: RunView, kind: str, node: TaskNode | None, version: int | None) -> list[str]:
    """The calls that give the task more time or more attempts, and run it with them."""
    if node is None or version is None:
        return []
    task = node.task
    if kind == TIMEOUT and task.timeout_s is not None:
        patch: dict[str, Any] = {"op": "replace", "path": f"{node.path}/timeout_s", "value": task.timeout_s * 2}
    elif task.retry is None:
        patch = {"op": "add", "path": f"{node.path}/retry", "value": {"max_attempts": 8}}
    else:
        attempts = (task.retry.max_attempts or 4) * 2
        patch = {"op": "add", "path": f"{node.path}/retry/max_attempts", "value": attempts}
    return [
        f"update_flow(flow_id={run.flow_id!r}, patch=[{patch}])",
        f"control_flow(run_id={run.run_id!r}, action='retry', version={version + 1})",
    ]
