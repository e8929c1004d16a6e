"""The journal of a run as Prefect would tell it: states of flow and task runs, and lines of their logs."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from ..store import Event
from ..store.records import UPSTREAM

MAX_MESSAGE = 4000  # characters of a state's message
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_UNTOLD = frozenset({"run.mirrored", "task.log"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownState:
    """A state in Prefect's words."""

    type: str
    name: str
    message: str | None = None
    scheduled_at: float | None = None
    """When it moves on, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of a flow run's log, or of its task run's."""

    level: int
    message: str
    at: float
    task: str | None
    item: int | None


_RUN_STATES = {
    "run.scheduled": ("PENDING", "Pending"),
    "run.running": ("RUNNING", "Running"),
    "run.waiting": ("PENDING", "Waiting"),
    "run.paused": ("PAUSED", "Paused"),
    "run.completed": ("COMPLETED", "Completed"),
    "run.failed": ("FAILED", "Failed"),
    "run.cancel_requested": ("CANCELLING", "Cancelling"),
    "run.cancelled": ("CANCELLED", "Cancelled"),
}
RUN_ENDS = frozenset({"run.completed", "run.failed", "run.cancelled"})
"""After these a run's journal has nothing more to show."""

_TASK_STATES = {
    "task.running": ("RUNNING", "Running"),
    "task.retrying": ("SCHEDULED", "AwaitingRetry"),
    "task.waiting": ("RUNNING", "Waiting"),
    "task.completed": ("COMPLETED", "Completed"),
    "task.failed": ("FAILED", "Failed"),
    "task.skipped": ("COMPLETED", "Skipped"),
    "task.cancelled": ("CANCELLED", "Cancelled"),
}


def state_of(event: Event) -> ShownState | None:
    """The state that an entry brings its run or task to; None where it brings none."""
    data: dict[str, Any] = json.loads(event.data) if event.data else {}
    if event.task is None:
        found = _RUN_STATES.get(event.type)
        error = data.get("error") or {}
        message = _failure(error) or data.get("reason")
    else:
        found = _TASK_STATES.get(event.type)
        error = data
        message = _failure(data) or data.get("reason")
    if found is None:
        return None
    type_, name = found
    scheduled_at = None
    if event.type == "task.running" and (event.attempt or 0) > 1:
        name = "Retrying"
    elif event.type == "task.retrying":
        scheduled_at = event.at + float(data.get("delay_s") or 0.0)
    elif type_ == "FAILED" and error.get("kind") == "timeout":
        name = "TimedOut"
    elif type_ == "FAILED" and error.get("kind") == "interrupted":
        type_, name = "CRASHED", "Crashed"
    elif event.type == "task.skipped" and str(data.get("reason") or "").startswith(UPSTREAM):
        type_, name = "PENDING", "NotReady"
    elif event.type == "task.completed" and (source := data.get("cached_from") or data.get("taken_over_from")):
        name, message = "Cached", f"its output was recorded by {source}"
    return ShownState(
        type=type_, name=name, message=message[:MAX_MESSAGE] if message else None, scheduled_at=scheduled_at
    )


def _failure(data: dict[str, Any]) -> str | None:
    return f"{data['kind']}: {data['message']}" if "kind" in data and "message" in data else None


def line_of(event: Event) -> LogLine | None:
    """The line that an entry leaves in a log: what an attempt wrote, and whatever else happened that is no state."""
    data: dict[str, Any] = json.loads(event.data) if event.data else {}
    level = logging.INFO
    if event.type == "task.log":
        level = _LEVELS.get(str(data.get("level")), logging.INFO)
        message = str(data.get("message", ""))
    elif event.type in _UNTOLD or state_of(event) is not None:
        return None
    else:
        message = event.type.partition(".")[2].replace("_", " ")
        if event.actor:
            message += f" by {event.actor}"
        if data:
            message += f": {json.dumps(data, ensure_ascii=False)}"
    return LogLine(level=level, message=message, at=event.at, task=event.task, item=event.item)
