"""Requests to cancel, pause or resume a run: obeyed at once where nobody owns it, else recorded for its owner."""

from __future__ import annotations

import json
from typing import Any

from ..errors import IllegalMove, RunNotFound
from ..states import RunState, TaskState
from .claims import pause_idle, schedule
from .moves import move_task
from .records import TaskMove, TaskRow
from .sql import SQL
from .writer import Refused, Transaction


def request(
    tx: Transaction,
    run_id: str,
    action: str,
    at: float,
    *,
    reason: str | None,
    actor: str | None,
) -> RunState:
    """Record a request to cancel, pause or resume; answers the run's state after it.

    A run that nobody owns moves at once; an owned one keeps running until its owner has obeyed. A cancelled
    run leaves no task pending. Raises RunNotFound, IllegalMove.
    """
    row = tx.row(SQL["run_for_request"], (run_id,))
    if row is None:
        raise RunNotFound(f"There is no run {run_id[:200]!r}.", next="Call list_flows(kind='runs') to see the runs.")
    state, flow_id, pending, parent = RunState(row[0]), row[1], row[2], row[3]
    if parent is not None and action in ("pause", "resume"):
        root, _ = _root(tx, parent)
        raise IllegalMove(
            f"The run {run_id} belongs to {root} and is paused and resumed with it.",
            next=f"Call control_flow(run_id={root!r}, action={action!r}).",
        )
    if state.is_terminal:
        if action == "cancel" and state is RunState.CANCELLED:
            return state
        raise IllegalMove(
            f"The run {run_id} has ended ({state}); it cannot {action}.",
            next=next_run(run_id, state),
        )
    if action == "resume":
        if state is RunState.PAUSED:
            schedule(tx, run_id, flow_id, at, actor=actor)
            return RunState.SCHEDULED
        if pending == "pause":
            cursor = tx.event("run.pause_withdrawn", at, run_id=run_id, flow_id=flow_id, actor=actor)
            tx.execute(SQL["set_request"], (None, None, cursor, run_id))
            return state
        raise IllegalMove(f"The run {run_id} is {state}, not paused.", next=f"Call get_flow_status(run_id={run_id!r}).")
    if action == "pause" and (state is RunState.PAUSED or pending is not None):
        if pending == "cancel":
            raise IllegalMove(f"The run {run_id} is being cancelled.", next=f"Call wait_for_flow(run_id={run_id!r}).")
        return state
    data = json.dumps({"reason": reason}) if reason else None
    if state is RunState.RUNNING:
        if pending != action:
            cursor = tx.event(f"run.{action}_requested", at, run_id=run_id, flow_id=flow_id, actor=actor, data=data)
            tx.execute(SQL["set_request"], (action, reason, cursor, run_id))
        return state
    if action == "pause":
        pause_idle(tx, run_id, flow_id, at, reason=reason, actor=actor)
        return RunState.PAUSED
    end_idle(tx, run_id, flow_id, at, reason=reason, actor=actor)
    if parent is not None:
        _wake_root(tx, parent, at)
    return RunState.CANCELLED


def _wake_root(tx: Transaction, run_id: str, at: float) -> None:
    """Let a waiting run look at the sub-flow that ended meanwhile; a paused one looks when it is resumed."""
    run_id, row = _root(tx, run_id)
    if row[0] == RunState.WAITING:
        schedule(tx, run_id, row[1], at)


def next_run(run_id: str, state: RunState) -> str:
    """The calls that make another run of one that has ended so."""
    again = f"control_flow(run_id={run_id!r}, action='rerun_from', task=...)"
    if state is RunState.COMPLETED:
        return f"For a new run call {again}, or execute_flow."
    return f"For a new run call control_flow(run_id={run_id!r}, action='retry') or {again}."


def _root(tx: Transaction, run_id: str) -> tuple[str, Any]:
    """The run of which that one is part, itself where it is no sub-flow's, and its row."""
    row = tx.row(SQL["run_for_request"], (run_id,))
    while row[3] is not None:
        run_id = row[3]
        row = tx.row(SQL["run_for_request"], (run_id,))
    return run_id, row


def end_idle(
    tx: Transaction,
    run_id: str,
    flow_id: str,
    at: float,
    *,
    to: RunState = RunState.CANCELLED,
    reason: str | None,
    actor: str | None = None,
    error: str | None = None,
) -> None:
    """Cancel a run that nobody owns (or fail one that is queued, with its `error` as JSON text), and with it its
    sub-flows and its unfinished tasks."""
    for child_id, _ in tx.rows(SQL["live_children"], (run_id,)):
        child_flow = tx.row(SQL["run_flow"], (child_id,))[0]
        end_idle(tx, child_id, child_flow, at, reason="its parent run was cancelled", actor=actor)
    for name, item, _state, attempts in tx.rows(SQL["unfinished_tasks"], (run_id,)):
        cursor = tx.event(
            "task.cancelled",
            at,
            run_id=run_id,
            flow_id=flow_id,
            task=name,
            item=None if item < 0 else item,
            attempt=attempts or None,
        )
        tx.execute(SQL["cancel_task"], (at, f"run {to}", cursor, run_id, name, item))
    for (name,) in tx.rows(SQL["pending_tasks"], (run_id,)):
        row = TaskRow(name, state=TaskState.CANCELLED, ended_at=at, reason=f"run {to}")
        move_task(tx, run_id, flow_id, TaskMove(row, TaskState.PENDING), at)
    data: dict[str, Any] = {"error": json.loads(error)} if error else {}
    if reason:
        data["reason"] = reason
    cursor = tx.event(
        f"run.{to}", at, run_id=run_id, flow_id=flow_id, actor=actor, data=json.dumps(data) if data else None
    )
    if to is RunState.FAILED:
        tx.execute(SQL["fail_idle_run"], (at, reason, cursor, error, run_id))
    else:
        tx.execute(SQL["cancel_idle_run"], (at, reason, cursor, run_id))
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} was taken meanwhile")
