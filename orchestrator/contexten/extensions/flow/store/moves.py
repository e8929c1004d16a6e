"""Moves of tasks and of owned runs: the row, its guard and its journal entry, in the transaction that is given."""

from __future__ import annotations

import json
from typing import Any

from ..states import RUN_MOVES, TASK_MOVES, RunState, TaskState
from .records import RunMove, StoredText, TaskMove
from .sql import SQL
from .writer import Refused, Transaction

USAGE = "task.usage"
"""The journal's entry about what a model used in an attempt."""

TASK_EVENTS = {state: f"task.{state}" for state in TaskState}


def move_task(tx: Transaction, run_id: str, flow_id: str, move: TaskMove, at: float) -> int:
    """Make one task's move; answers its place in the journal. The run's guard is the caller's."""
    cursor, is_new, row = task_row(tx, run_id, flow_id, move, at)
    tx.execute(SQL["insert_task"] if is_new else SQL["update_task"], row)
    if tx.cursor.rowcount != 1:
        raise Refused(f"task {move.row.task} is no longer {move.before}")
    return cursor


def task_row(
    tx: Transaction, run_id: str, flow_id: str, move: TaskMove, at: float
) -> tuple[int, bool, tuple[Any, ...]]:
    """Enter a task's move in the journal; answers its place, whether the task has no row yet, and the row to write."""
    row, before, data = move
    state = row.state
    if state not in TASK_MOVES[before]:
        raise Refused(f"task {row.task}: {before} -> {state} is not a legal move")
    item = None if row.item < 0 else row.item
    cursor = tx.enter(run_id, flow_id, TASK_EVENTS[state], row.task, item, row.attempts or None, at, None, data)
    output = columns(tx, row.output)
    if before is TaskState.PENDING:
        items = columns(tx, row.items)
        return (
            cursor,
            True,
            (
                row.task,
                row.item,
                state,
                row.attempts,
                row.interruptions,
                row.agent,
                items[0],
                items[1],
                row.child_run_id,
                row.started_at,
                row.ended_at,
                row.wake_at,
                row.reason,
                row.error,
                *output,
                int(row.taken_over),
                cursor,
                run_id,
            ),
        )
    return (
        cursor,
        False,
        (
            state,
            row.attempts,
            row.interruptions,
            row.agent,
            row.child_run_id,
            row.ended_at,
            row.wake_at,
            row.reason,
            row.error,
            *output,
            cursor,
            run_id,
            row.task,
            row.item,
            before,
        ),
    )


def columns(tx: Transaction, stored: StoredText | None) -> tuple[str | None, str | None, int | None]:
    """A text as its columns have it (inline, digest, bytes), with its blob written where it has one."""
    if stored is None:
        return None, None, None
    if stored.digest is None:
        return stored.text, None, stored.size
    tx.execute(SQL["put_blob"], (stored.digest, stored.text))
    return None, stored.digest, stored.size


def move_run(tx: Transaction, move: RunMove) -> None:
    """Make the run's own move; `tx.cursor.rowcount` says whether its guard held."""
    state = move.to
    if state is RunState.WAITING:
        cursor = _enter_run_move(tx, move)
        tx.execute(SQL["park_run"], (move.completed, cursor, move.wake_at, move.at, move.run_id, move.fence))
    elif state is RunState.PAUSED:
        cursor = _enter_run_move(tx, move)
        tx.execute(SQL["pause_owned_run"], (move.completed, cursor, move.at, move.wake_at, move.run_id, move.fence))
    else:
        tx.execute(SQL["end_run"], end_row(tx, move))


def end_row(tx: Transaction, move: RunMove) -> tuple[Any, ...]:
    """Enter the run's end in the journal; answers the row to write."""
    cursor = _enter_run_move(tx, move)
    text, digest, _ = columns(tx, move.output)
    return (
        move.to,
        move.completed,
        cursor,
        move.at,
        move.error,
        move.failed_tasks,
        text,
        digest,
        move.reason,
        move.run_id,
        move.fence,
    )


def _enter_run_move(tx: Transaction, move: RunMove) -> int:
    state = move.to
    if state is None or state not in RUN_MOVES[RunState.RUNNING]:
        raise Refused(f"run {move.run_id}: running -> {state} is not a legal move")
    data: dict[str, object] = {}
    if move.error is not None:
        data["error"] = json.loads(move.error)
    if move.reason is not None:
        data["reason"] = move.reason
    if move.wake_at is not None and state is RunState.WAITING:
        data["wake_at"] = move.wake_at
    return tx.event(
        f"run.{state}",
        move.at,
        run_id=move.run_id,
        flow_id=move.flow_id,
        actor=move.actor,
        data=json.dumps(data) if data else None,
    )


def enter_logs(tx: Transaction, move: RunMove, place: int) -> None:
    """Enter in the journal what happened to tasks between two moves of the change, and fold what models used."""
    for remark in move.logs:
        if remark.place != place:
            continue
        tx.event(
            remark.type,
            move.at,
            run_id=move.run_id,
            flow_id=move.flow_id,
            task=remark.task,
            item=remark.item,
            attempt=remark.attempt,
            data=remark.data,
        )
        if remark.type == USAGE:
            used = json.loads(remark.data)
            told = ("model", "input_tokens", "output_tokens", "cost_usd", "model_calls")
            tx.execute(SQL["add_usage"], (move.run_id, *map(used.get, told)))
