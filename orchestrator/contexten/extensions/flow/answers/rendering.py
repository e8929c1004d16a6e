"""Rows of the store as the views that answers are made of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ..clock import iso
from ..definition import Plan, TaskNode
from ..engines.choice import EngineReference
from ..scheduling.forecast import ExpectedStart
from ..states import TaskState
from ..views import DeadlineView, EventView, FlowView, RunError, RunView, TaskView


def shown_error(text: str | None) -> RunError | None:
    """An error as the state tables keep it."""
    if text is None:
        return None
    data = json.loads(text)
    return RunError(
        kind=data["kind"],
        message=data["message"],
        task=data.get("task") or None,
        attempt=data.get("attempt"),
        details=data.get("details"),
    )


def engine_fields(reference: str) -> dict[str, str | None]:
    """The engine that a run keeps, as fields of its view."""
    engine = EngineReference.parse(reference)
    return {"framework": engine.name, "work_pool": engine.pool}


def flow_view(row: sqlite3.Row, run: RunView | None) -> FlowView:
    """A flow's row, with its latest run."""
    return FlowView(
        flow_id=row["flow_id"],
        name=row["name"],
        description=row["description"],
        version=row["version"],
        tags=json.loads(row["tags"]),
        state=run.state if run else "idle",
        created_at=iso(row["created_at"]) or "",
        updated_at=iso(row["updated_at"]) or "",
        latest_run=run,
        runs=row["runs"],
    )


def deadline_view(
    row: sqlite3.Row | Mapping[str, Any], now: float, start: ExpectedStart | None = None
) -> DeadlineView | None:
    """A run's deadline, and whether it is at risk; None where it has none. Without `start`, when it will probably
    start, a queued run counts as one that starts now."""
    if row["deadline"] is None:
        return None
    needs_s: float | None = row["estimate_s"] if start is None else start.needs_s
    done = now - row["started_at"] if row["started_at"] else 0.0
    begins = now if start is None else max(now, start.at)
    slack: float | None = round(row["deadline"] - begins - max(0.0, (needs_s or 0.0) - done), 3)
    if row["ended_at"] is not None or (needs_s is None and (start is None or row["deadline"] >= begins)):
        slack = None
    return DeadlineView(
        at=iso(row["deadline"]) or "",
        on_deadline=row["on_deadline"] or "continue",
        missed=bool(row["deadline_missed"]),
        slack_s=slack,
        at_risk=None if slack is None else slack < 0,
    )


def event_view(row: sqlite3.Row, cursor: str, *, of_run: bool) -> EventView:
    """An entry of the journal; of one run's entries the run goes without saying."""
    return EventView(
        cursor=cursor,
        type=row["type"],
        at=iso(row["at"]) or "",
        run_id=None if of_run else row["run_id"],
        task=row["task"],
        attempt=row["attempt"],
        item=row["item"],
        details=_details(row["data"]),
        actor=row["actor"],
    )


def _details(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    details: dict[str, Any] = json.loads(text)
    for name in ("wake_at", "until", "deadline"):  # the journal keeps times as numbers
        if isinstance(details.get(name), int | float):
            details[name] = iso(details[name])
    return details


def with_holds(tasks: list[TaskView], holds: Mapping[str, str], plan: Plan) -> list[TaskView]:
    """The tasks, those that are held up with the reason. What was read of the store may be older than `holds`: then a
    task may be still running that is held up before its next attempt."""
    if not holds:
        return tasks
    return [
        task.model_copy(update={"reason": holds[task.name]})
        if task.name in holds
        and (task.state in (TaskState.PENDING, TaskState.RETRYING) or plan.tasks[task.name].for_each is not None)
        else task
        for task in tasks
    ]


def task_view(row: sqlite3.Row, node: TaskNode, items: Mapping[str, int] | None) -> TaskView:
    """A task's row; `items` are those of its for_each, by state."""
    started, ended = row["started_at"], row["ended_at"]
    return TaskView(
        name=row["task"],
        stage=node.stage,
        on_failure_of=node.on_failure_of,
        state=row["state"],
        attempts=row["attempts"],
        agent=row["agent"],
        started_at=iso(started),
        ended_at=iso(ended),
        duration_s=round(max(0.0, ended - started), 3) if started and ended else None,
        next_attempt_at=iso(row["wake_at"]),
        reason=row["reason"],
        error=shown_error(row["error"]) if row["state"] in ("failed", "retrying") else None,
        items=dict(items) if items else None,
        child_run_id=row["child_run_id"],
        output_bytes=row["output_bytes"],
        taken_over=bool(row["taken_over"]) or None,
    )
