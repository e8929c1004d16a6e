"""Who drives a run: claiming from the queue, taking over, giving up, queueing again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ..states import RunState, TaskState
from .moves import move_run
from .records import ClaimedRun, RunMove, StoredText, TaskRow
from .sql import SQL
from .writer import Refused, Transaction

WAKE_BATCH = 200  # runs a transaction: they must not hold up those that work


def claim_one(tx: Transaction, run_id: str, flow_id: str, owner: str, at: float) -> None:
    """Take one scheduled run. Raises Refused where it is not scheduled any more."""
    tx.execute(SQL["claim_run"], (owner, at, run_id))
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} is no longer scheduled")
    cursor = tx.event("run.running", at, run_id=run_id, flow_id=flow_id)
    tx.execute(SQL["set_run_cursor"], (cursor, run_id))


def take_over(
    tx: Transaction,
    owner: str,
    at: float,
    *,
    limit: int = -1,
    declined: Sequence[str] = (),
    refused: Sequence[str] = (),
) -> list[ClaimedRun]:
    """Take the running runs that no server owns, all or at most `limit`; of `declined` ones only those that somebody
    wants ended or paused, of `refused` ones none. Tasks in flight were cut off: a crash counts, a release does not."""
    taken: list[ClaimedRun] = []
    if not tx.may_own(owner):
        return taken
    for run_id, former in tx.rows(SQL["abandoned_runs"], (json.dumps(declined), json.dumps(refused), limit)):
        _take_over_one(tx, run_id, owner, former, at)
        taken.append(load_claimed(tx, run_id, owner, at))
    return taken


def take_back(tx: Transaction, runs: Sequence[tuple[str, str, int]], owner: str, at: float) -> ClaimedRun | None:
    """Take a run (the first of `runs`) and its sub-flows anew from oneself: what was known of it may be wrong.

    None where it has ended, is another's, or the server's lease has lapsed.
    """
    if not tx.may_own(owner):
        return None
    release(tx, runs, at)
    run_id = runs[0][0]
    row = tx.row(SQL["claimed_run"], (run_id,))
    if row is None or row[19] != RunState.RUNNING or tx.row(SQL["run_owner"], (run_id,))[0] is not None:
        return None
    _take_over_one(tx, run_id, owner, None, at)
    return load_claimed(tx, run_id, owner, at)


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
            claim_one(tx, child_id, flow_id, owner, at)
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
        read_at=tx.seq,
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
    """Queue up to a batch of the waiting runs whose time has come; answers how many."""
    due = tx.rows(SQL["due_runs"], (at, WAKE_BATCH))
    for run_id, flow_id in due:
        schedule(tx, run_id, flow_id, at)
    return len(due)


def follow(tx: Transaction, run_id: str, state: RunState, at: float, wake_at: float | None) -> None:
    """Bring the live sub-flows of a run that waits or was paused to the same state."""
    for child_id, child_state in tx.rows(SQL["live_children"], (run_id,)):
        flow_id, fence = tx.row(SQL["run_fence"], (child_id,))
        if child_state == RunState.RUNNING:
            move_run(
                tx,
                RunMove(run_id=child_id, flow_id=flow_id, fence=fence, at=at, to=state, wake_at=wake_at),
            )
        elif state is RunState.PAUSED and child_state != RunState.PAUSED:
            pause_idle(tx, child_id, flow_id, at)
            continue
        follow(tx, child_id, state, at, wake_at)


def pause_idle(
    tx: Transaction, run_id: str, flow_id: str, at: float, *, reason: str | None = None, actor: str | None = None
) -> None:
    """Pause a run that nobody owns, and its sub-flows."""
    data = json.dumps({"reason": reason}) if reason else None
    cursor = tx.event("run.paused", at, run_id=run_id, flow_id=flow_id, actor=actor, data=data)
    tx.execute(SQL["pause_idle_run"], (at, reason, cursor, run_id))
    follow(tx, run_id, RunState.PAUSED, at, None)


def release(tx: Transaction, runs: Iterable[tuple[str, str, int]], at: float, data: str | None = None) -> None:
    """Give up runs in order: they stay running without an owner, and the next server takes them over. `data` (JSON)
    tells the journal why."""
    for run_id, flow_id, fence in runs:
        tx.execute(SQL["release_run"], (tx.seq + 1, run_id, fence))
        if tx.cursor.rowcount:
            tx.event("run.released", at, run_id=run_id, flow_id=flow_id, data=data)
