"""Recording runs."""

from __future__ import annotations

import json

from ..errors import IdempotencyConflict
from ..states import TaskState
from .claims import claim_one
from .dependencies import record as depend
from .moves import move_task
from .records import NewRun, Submitted, TaskMove
from .sql import SQL
from .writer import Stale, Transaction


def submit(tx: Transaction, run: NewRun) -> Submitted:
    """Record a run as scheduled, unless an earlier run answers for its idempotency key.

    Raises IdempotencyConflict where the key was used for another request, Stale where the flow has a newer version or
    the queue another strategy's keys.
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
            raise Stale(f"flow {run.flow_id} is no longer at version {run.version}")
    if run.keys is not None:
        keys = tx.row(SQL["setting"], ("queue_keys",))
        if keys is not None and keys[0] != run.keys:
            raise Stale(f"the queue has the keys of {keys[0]}, not of {run.keys}")
    return Submitted(run.run_id, is_existing=False, cursor=insert(tx, run))


def submit_and_start(tx: Transaction, run: NewRun, owner: str, max_concurrent: int) -> Submitted:
    """Record a run, and claim it in the same change where a slot is free, none is queued before it, and no limit could
    forbid it. Not for a run with demands or dependencies."""
    submitted = submit(tx, run)
    if submitted.is_existing or tx.row(SQL["count_slots"])[0] >= max_concurrent or tx.row(SQL["any_limit"]) is not None:
        return submitted
    if tx.row(SQL["queue_head"], (1,))[0] != run.run_id or not tx.may_own(owner):
        return submitted
    claim_one(tx, run.run_id, run.flow_id, owner, run.created_at)
    return submitted._replace(cursor=tx.seq, has_started=True)


def insert(tx: Transaction, run: NewRun) -> int:
    """Record a run as scheduled, with the outputs that it takes over; answers its cursor."""
    data = {"version": run.version, "priority": run.priority, "framework": run.framework}
    if run.rerun_of is not None:
        data["rerun_of"] = run.rerun_of
    if run.parent_run_id is not None:
        data["parent_run_id"] = run.parent_run_id
    if run.deadline is not None:
        data |= {"deadline": run.deadline, "on_deadline": run.on_deadline}
    if run.dependencies:
        data["dependencies"] = run.dependencies
    if run.trace is not None:
        data["traceparent"] = run.trace
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
            run.deadline,
            run.on_deadline,
            run.estimate_s,
            run.demands,
            "dependencies" if run.dependencies else None,
        ),
    )
    depend(tx, run)
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
