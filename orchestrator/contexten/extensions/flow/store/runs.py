"""Changes of runs: each a guarded move with its journal entries, in the transaction that it is given.

A guard that does not hold raises Refused: nothing of the change happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import IdempotencyConflict, IllegalMove, RunNotFound
from ..states import RUN_MOVES, TASK_MOVES, RunState, TaskState
from .records import ClaimedRun, NewRun, RunMove, StoredText, Submitted, TaskMove, TaskRow
from .sql import SQL
from .writer import Refused, Transaction


def submit(tx: Transaction, run: NewRun) -> Submitted:
    """Record a run as scheduled, unless an earlier run answers for its idempotency key.

    Raises IdempotencyConflict where the key was used for another request, Refused where the flow has a newer version.
    """
    if run.idempotency_key is not None:
        earlier = tx.row(SQL["run_by_key"], (run.flow_id, run.idempotency_key))
        if earlier is not None:
            if earlier[1] != run.request_digest:
                raise IdempotencyConflict(
                    f"The idempotency key {run.idempotency_key!r} was used for another request of this flow.",
                    next=f"Use a new key, or look at that run: get_flow_status(run_id={earlier[0]!r}).",
                )
            return Submitted(earlier[0], is_existing=True, cursor=0)
    if run.is_latest:
        latest = tx.row(SQL["flow_version"], (run.flow_id,))
        if latest is None or latest[0] != run.version:
            raise Refused(f"flow {run.flow_id} is no longer at version {run.version}")
    return Submitted(run.run_id, is_existing=False, cursor=insert(tx, run))


def submit_and_start(tx: Transaction, run: NewRun, owner: str, max_concurrent: int) -> Submitted:
    """Record a run, and claim it in the same change where a slot is free and none is queued before it."""
    submitted = submit(tx, run)
    if submitted.is_existing or tx.row(SQL["count_slots"])[0] >= max_concurrent:
        return submitted
    if tx.row(SQL["queue_head"], (1,))[0] != run.run_id:
        return submitted
    _claim_one(tx, run.run_id, run.flow_id, owner, run.created_at)
    return submitted._replace(cursor=tx.seq, has_started=True)


def insert(tx: Transaction, run: NewRun) -> int:
    """Record a run as scheduled, with the outputs that it takes over; answers its cursor."""
    data = {"version": run.version, "priority": run.priority, "framework": run.framework}
    if run.rerun_of is not None:
        data["rerun_of"] = run.rerun_of
    if run.parent_run_id is not None:
        data["parent_run_id"] = run.parent_run_id
    cursor = tx.event(
        "run.scheduled",
        run.created_at,
        run_id=run.run_id,
        flow_id=run.flow_id,
        actor=run.actor,
        data=json.dumps(data),
    )
    tx.execute(
        SQL["insert_run"],
        (
            run.run_id,
            run.flow_id,
            run.version,
            run.name,
            run.framework,
            run.priority,
            run.queue_key,
            run.inputs,
            run.timeout_s,
            run.idempotency_key,
            run.request_digest,
            run.rerun_of,
            run.parent_run_id,
            run.parent_task,
            run.parent_item,
            len(run.taken_over),
            run.total,
            cursor + len(run.taken_over),
            run.created_at,
        ),
    )
    for row in run.taken_over:
        move_task(
            tx,
            run.run_id,
            run.flow_id,
            TaskMove(row, TaskState.PENDING, json.dumps({"taken_over_from": run.rerun_of})),
            run.created_at,
        )
    if run.parent_run_id is None:
        tx.execute(SQL["set_latest_run"], (run.run_id, run.flow_id))
    return cursor + len(run.taken_over)


def move_task(tx: Transaction, run_id: str, flow_id: str, move: TaskMove, at: float) -> int:
    """Make one task's move; answers its place in the journal. The run's guard is the caller's."""
    cursor, is_new, row = _task_row(tx, run_id, flow_id, move, at)
    tx.execute(SQL["insert_task"] if is_new else SQL["update_task"], row)
    if tx.cursor.rowcount != 1:
        raise Refused(f"task {move.row.task} is no longer {move.before}")
    return cursor


def _task_row(
    tx: Transaction, run_id: str, flow_id: str, move: TaskMove, at: float
) -> tuple[int, bool, tuple[Any, ...]]:
    """Enter a task's move in the journal; answers its place, whether the task has no row yet, and the row to write."""
    row, before, data = move
    state = row.state
    if state not in TASK_MOVES[before]:
        raise Refused(f"task {row.task}: {before} -> {state} is not a legal move")
    cursor = tx.event(
        TASK_EVENTS[state],
        at,
        run_id=run_id,
        flow_id=flow_id,
        task=row.task,
        item=None if row.item < 0 else row.item,
        attempt=row.attempts or None,
        data=data,
    )
    output = _columns(tx, row.output)
    if before is TaskState.PENDING:
        items = _columns(tx, row.items)
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


def _columns(tx: Transaction, stored: StoredText | None) -> tuple[str | None, str | None, int | None]:
    if stored is None:
        return None, None, None
    if stored.digest is None:
        return stored.text, None, stored.size
    tx.execute(SQL["put_blob"], (stored.digest, stored.text))
    return None, stored.digest, stored.size


class Advance:
    """The change that `advance` makes; those of one group are made together, a statement a table."""

    __slots__ = ("move",)

    def __init__(self, move: RunMove) -> None:
        self.move = move

    def __call__(self, tx: Transaction) -> int:
        return advance(tx, self.move)

    @staticmethod
    def together(tx: Transaction, advances: Sequence[Advance]) -> list[int]:
        """Make all moves, or raise Refused where any of them is refused."""
        inserts: list[tuple[Any, ...]] = []
        updates: list[tuple[Any, ...]] = []
        guards: list[tuple[Any, ...]] = []
        ends: list[tuple[Any, ...]] = []
        cursors = []
        for change in advances:
            move = change.move
            if move.children or move.to in _PARKED:
                cursors.append(advance(tx, move))
                continue
            for task in move.tasks:
                _, is_new, row = _task_row(tx, move.run_id, move.flow_id, task, move.at)
                (inserts if is_new else updates).append(row)
            _enter_logs(tx, move)
            if move.to is None:
                guards.append((move.completed, tx.seq, move.run_id, move.fence))
            else:
                ends.append(_end_row(tx, move))
            cursors.append(tx.seq)
        for statement, rows in (
            (SQL["insert_task"], inserts),
            (SQL["update_task"], updates),
            (SQL["advance_run"], guards),
            (SQL["end_run"], ends),
        ):
            if rows:
                tx.cursor.executemany(statement, rows)
                if tx.cursor.rowcount != len(rows):
                    raise Refused("a run or a task is no longer in the expected state")
        return cursors


TASK_EVENTS = {state: f"task.{state}" for state in TaskState}
_PARKED = (RunState.WAITING, RunState.PAUSED)

REQUEST_PENDING = -1
"""What `advance` answers where the run does not wait or pause after all, since it was asked for something meanwhile."""


def advance(tx: Transaction, move: RunMove) -> int:
    """Make the moves of an owned run; answers its cursor, or REQUEST_PENDING.

    Raises Refused where the run is no longer running under the fence.
    """
    run_id, at = move.run_id, move.at
    to = move.to
    if to in _PARKED:
        request = tx.row(SQL["run_for_request"], (run_id,))[2]
        if request != ("pause" if to is RunState.PAUSED else None):
            to = None
    for task in move.tasks:
        move_task(tx, run_id, move.flow_id, task, at)
    _enter_logs(tx, move)
    if to is None:
        tx.execute(SQL["advance_run"], (move.completed, tx.seq, run_id, move.fence))
    else:
        _move_run(tx, move)
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} is no longer running under fence {move.fence}")
    if to in _PARKED:
        follow(tx, run_id, to, at, move.wake_at)
    for child in move.children:
        insert(tx, child)
        _claim_one(tx, child.run_id, child.flow_id, _owner(tx, run_id), at)
    return REQUEST_PENDING if to is None and move.to is not None else tx.seq


def _enter_logs(tx: Transaction, move: RunMove) -> None:
    for name, task, item, attempt, data in move.logs:
        tx.event(
            name,
            move.at,
            run_id=move.run_id,
            flow_id=move.flow_id,
            task=task,
            item=item,
            attempt=attempt,
            data=data,
        )


def _owner(tx: Transaction, run_id: str) -> str:
    return str(tx.row(SQL["run_owner"], (run_id,))[0])


def _move_run(tx: Transaction, move: RunMove) -> None:
    state = move.to
    if state is RunState.WAITING:
        cursor = _enter_run_move(tx, move)
        tx.execute(SQL["park_run"], (move.completed, cursor, move.wake_at, move.run_id, move.fence))
    elif state is RunState.PAUSED:
        cursor = _enter_run_move(tx, move)
        tx.execute(SQL["pause_owned_run"], (move.completed, cursor, move.at, move.wake_at, move.run_id, move.fence))
    else:
        tx.execute(SQL["end_run"], _end_row(tx, move))


def _end_row(tx: Transaction, move: RunMove) -> tuple[Any, ...]:
    cursor = _enter_run_move(tx, move)
    text, digest, _ = _columns(tx, move.output)
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


def claim(tx: Transaction, owner: str, at: float, *, limit: int, max_concurrent: int) -> list[ClaimedRun]:
    """Take the next queued runs, in the order of their keys, while slots are free."""
    free = max_concurrent - tx.row(SQL["count_slots"])[0]
    claimed = []
    for (run_id,) in tx.rows(SQL["queue_head"], (max(0, min(free, limit)),)):
        flow_id = tx.row(SQL["run_flow"], (run_id,))[0]
        _claim_one(tx, run_id, flow_id, owner, at)
        claimed.append(load_claimed(tx, run_id, owner, at))
    return claimed


def _claim_one(tx: Transaction, run_id: str, flow_id: str, owner: str, at: float) -> None:
    tx.execute(SQL["claim_run"], (owner, at, run_id))
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} is no longer scheduled")
    cursor = tx.event("run.running", at, run_id=run_id, flow_id=flow_id)
    tx.execute(SQL["set_run_cursor"], (cursor, run_id))


def take_over(tx: Transaction, owner: str, at: float) -> list[ClaimedRun]:
    """Take every running run whose owner is gone. Its tasks in flight were cut off: a crash counts, a release does
    not."""
    taken = []
    for run_id, former in tx.rows(SQL["abandoned_runs"], (owner,)):
        _take_over_one(tx, run_id, owner, former, at)
        taken.append(load_claimed(tx, run_id, owner, at))
    return taken


def _take_over_one(tx: Transaction, run_id: str, owner: str, former: str | None, at: float) -> None:
    flow_id = tx.row(SQL["run_flow"], (run_id,))[0]
    tx.execute(SQL["take_over_run"], (owner, run_id, owner))
    cursor = tx.event(
        "run.lease_taken",
        at,
        run_id=run_id,
        flow_id=flow_id,
        data=json.dumps({"after": "a crash" if former else "an orderly stop"}),
    )
    tx.execute(SQL["set_run_cursor"], (cursor, run_id))
    if former:
        tx.execute(SQL["count_interruptions"], (run_id,))
    else:
        tx.execute(SQL["forget_attempts"], (run_id,))


def load_claimed(tx: Transaction, run_id: str, owner: str, at: float) -> ClaimedRun:
    """An owned run with its tasks and its live sub-flows, which are claimed with it."""
    row = tx.row(SQL["claimed_run"], (run_id,))
    tasks = [
        TaskRow(
            task=r[0],
            item=r[1],
            state=TaskState(r[2]),
            attempts=r[3],
            interruptions=r[4],
            agent=r[5],
            items=StoredText(r[6], r[7], len(r[6])) if r[6] is not None else None,
            child_run_id=r[8],
            started_at=r[9],
            ended_at=r[10],
            wake_at=r[11],
            reason=r[12],
            error=r[13],
            output=StoredText(r[14], r[15], r[16] or 0) if r[14] is not None else None,
            taken_over=bool(r[17]),
        )
        for r in (tx.rows(SQL["claimed_tasks"], (run_id,)))
    ]
    children = []
    for child_id, state in tx.rows(SQL["awaited_children"], (run_id,)):
        flow_id = tx.row(SQL["run_flow"], (child_id,))[0]
        if RunState(state).is_terminal:
            pass
        elif state == RunState.RUNNING:
            former = tx.row(SQL["run_owner"], (child_id,))[0]
            if former != owner:
                _take_over_one(tx, child_id, owner, former, at)
        else:
            if state != RunState.SCHEDULED:
                schedule(tx, child_id, flow_id, at)
            _claim_one(tx, child_id, flow_id, owner, at)
        children.append(load_claimed(tx, child_id, owner, at))
    return ClaimedRun(
        run_id=row[0],
        flow_id=row[1],
        version=row[2],
        name=row[3],
        framework=row[4],
        priority=row[5],
        fence=row[6],
        inputs=row[7],
        timeout_s=row[8],
        request=row[9],
        reason=row[10],
        completed=row[11],
        created_at=row[12],
        started_at=row[13],
        paused_s=row[14],
        parent_run_id=row[15],
        parent_task=row[16],
        parent_item=row[17],
        rerun_of=row[18],
        state=RunState(row[19]),
        output=StoredText(row[20], None, len(row[20])) if row[20] is not None else None,
        error=row[21],
        tasks=tasks,
        children=children,
    )


def schedule(tx: Transaction, run_id: str, flow_id: str, at: float, *, actor: str | None = None) -> None:
    """Queue a waiting or paused run again, under its original key."""
    cursor = tx.event("run.scheduled", at, run_id=run_id, flow_id=flow_id, actor=actor)
    tx.execute(SQL["schedule_run"], (cursor, at, run_id))
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} is neither waiting nor paused")


def wake_due(tx: Transaction, at: float) -> int:
    """Queue every waiting run whose time has come; answers how many."""
    due = tx.rows(SQL["due_runs"], (at,))
    for run_id, flow_id in due:
        schedule(tx, run_id, flow_id, at)
    return len(due)


def follow(tx: Transaction, run_id: str, state: RunState, at: float, wake_at: float | None) -> None:
    """Bring the live sub-flows of a run that left `running` to the same state (waiting or paused)."""
    for child_id, child_state in tx.rows(SQL["live_children"], (run_id,)):
        if child_state == RunState.RUNNING:
            flow_id, fence = tx.row(SQL["run_fence"], (child_id,))
            _move_run(
                tx,
                RunMove(run_id=child_id, flow_id=flow_id, fence=fence, at=at, to=state, wake_at=wake_at),
            )
        follow(tx, child_id, state, at, wake_at)


def release(tx: Transaction, runs: Iterable[tuple[str, str, int]], at: float) -> None:
    """Give up runs at an orderly stop: they stay running without an owner, and the next server takes them over."""
    for run_id, flow_id, fence in runs:
        cursor = tx.event("run.released", at, run_id=run_id, flow_id=flow_id)
        tx.execute(SQL["release_run"], (cursor, run_id, fence))


def request(
    tx: Transaction,
    run_id: str,
    action: str,
    at: float,
    *,
    reason: str | None,
    actor: str | None,
    tasks: Sequence[str],
) -> RunState:
    """Record a request to cancel, pause or resume; answers the run's state after it.

    A run that nobody owns moves at once; an owned one keeps running until its owner has obeyed. `tasks` are the names
    of the run's definition, so that a cancelled run leaves none pending. Raises RunNotFound, IllegalMove.
    """
    row = tx.row(SQL["run_for_request"], (run_id,))
    if row is None:
        raise RunNotFound(f"There is no run {run_id!r}.", next="Call list_flows(kind='runs') to see the runs.")
    state, flow_id, pending, parent = RunState(row[0]), row[1], row[2], row[3]
    if parent is not None and action in ("pause", "resume"):
        raise IllegalMove(
            f"The run {run_id} belongs to {parent} and is paused and resumed with it.",
            next=f"Call control_flow(run_id={parent!r}, action={action!r}).",
        )
    if state.is_terminal:
        if action == "cancel" and state is RunState.CANCELLED:
            return state
        raise IllegalMove(
            f"The run {run_id} has ended ({state}); it cannot {action}.",
            next=f"For a new run of it call control_flow(run_id={run_id!r}, action='retry' or 'rerun_from').",
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
        cursor = tx.event("run.paused", at, run_id=run_id, flow_id=flow_id, actor=actor, data=data)
        tx.execute(SQL["pause_idle_run"], (at, reason, cursor, run_id))
        follow(tx, run_id, RunState.PAUSED, at, None)
        return RunState.PAUSED
    cancel_idle(tx, run_id, flow_id, at, reason=reason, actor=actor, tasks=tasks)
    return RunState.CANCELLED


def cancel_idle(
    tx: Transaction,
    run_id: str,
    flow_id: str,
    at: float,
    *,
    reason: str | None,
    actor: str | None,
    tasks: Sequence[str],
) -> None:
    """Cancel a run that nobody owns, its sub-flows and its unfinished tasks."""
    for child_id, _ in tx.rows(SQL["live_children"], (run_id,)):
        child_flow = tx.row(SQL["run_flow"], (child_id,))[0]
        cancel_idle(tx, child_id, child_flow, at, reason="its parent run was cancelled", actor=actor, tasks=())
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
        tx.execute(SQL["cancel_task"], (at, "run cancelled", cursor, run_id, name, item))
    started = {name for (name,) in tx.rows(SQL["task_names"], (run_id,))}
    for name in tasks:
        if name not in started:
            row = TaskRow(name, state=TaskState.CANCELLED, ended_at=at, reason="run cancelled")
            move_task(tx, run_id, flow_id, TaskMove(row, TaskState.PENDING), at)
    data = json.dumps({"reason": reason}) if reason else None
    cursor = tx.event("run.cancelled", at, run_id=run_id, flow_id=flow_id, actor=actor, data=data)
    tx.execute(SQL["cancel_idle_run"], (at, reason, cursor, run_id))
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} was taken meanwhile")
