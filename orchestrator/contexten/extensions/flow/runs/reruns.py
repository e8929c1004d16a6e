"""Running again: a new run that takes over the recorded outputs that still hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..agents.staff import Staff
from ..clock import make_id
from ..definition import Plan
from ..errors import IllegalMove, InvalidArguments, TaskNotFound
from ..flows.planview import predecessors
from ..flows.saving import SavedFlow
from ..scheduling.in_force import Scheduling
from ..states import RunState, TaskState
from ..store import NewRun, StoredText, TaskRow
from ..store.records import UPSTREAM
from ..store.requests import next_run
from ..strategies import QueuedRun
from ..trace_context import current_trace
from ..views import TaskView

RERUNS = ("retry", "rerun_from")
"""The actions that make a new run."""


def unchanged_tasks(old: Plan, new: Plan) -> set[str]:
    """Tasks of `new` that are as they were in `old`, and so is everything that they depend on."""
    same: set[str] = set()
    for name in new.order:
        node, before = new.tasks[name], old.tasks.get(name)
        if before is None or before.stage != node.stage or before.task != node.task:
            continue
        if before.requires == node.requires and node.requires <= same:
            same.add(name)
    return same


def downstream(plan: Plan, task: str) -> set[str]:
    """The task and everything that comes after it, by dependency or implied order."""
    before = predecessors(plan)
    found = {task}
    for name in plan.order:
        if before[name] & found:
            found.add(name)
    return found


def taken_over(
    outputs: Collection[tuple[str, StoredText]],
    old: Plan,
    new: Plan,
    *,
    settled: Collection[str],
    again: str | None,
    at: float,
) -> tuple[TaskRow, ...]:
    """Rows of completed tasks for the new run; of rerun_from (`again`) only what is not after that task.

    `settled` are the tasks whose end will not be another one: completed, or skipped by a condition. What depends on
    any other task runs again with it.
    """
    keep = unchanged_tasks(old, new)
    unsettled = old.tasks.keys() - set(settled)
    for name in new.order:
        if new.tasks[name].requires & unsettled:
            unsettled.add(name)
            keep.discard(name)
    if again is not None:
        keep -= downstream(new, again)
    return tuple(
        TaskRow(name, state=TaskState.COMPLETED, started_at=at, ended_at=at, output=output, taken_over=True)
        for name, output in outputs
        if name in keep
    )


def check_rerun(run_id: str, state: RunState, action: str, task: str | None, plan: Plan) -> None:
    """Raises IllegalMove where the run cannot be run again now, InvalidArguments where the task is missing."""
    if not state.is_terminal:
        raise IllegalMove(
            f"The run {run_id} is {state}; only a run that has ended can be run again.",
            next=f"Call wait_for_flow(run_id={run_id!r}) or control_flow(run_id={run_id!r}, action='cancel').",
        )
    if action == "retry" and state is RunState.COMPLETED:
        raise IllegalMove(
            f"The run {run_id} is completed; there is nothing to retry.",
            next=next_run(run_id, state),
        )
    if action == "rerun_from" and task is None:
        raise InvalidArguments("rerun_from needs a task.", next=f"Its tasks: {', '.join(plan.order[:50])}.")


def new_rerun(
    row: Mapping[str, Any] | sqlite3.Row,
    old: Plan,
    flow: SavedFlow,
    *,
    again: str | None,
    timeout_s: float | None,
    tasks: Sequence[TaskView],
    outputs: Collection[tuple[str, StoredText]],
    scheduling: Scheduling,
    estimate_s: float | None,
    staff: Staff,
    at: float,
    actor: str,
) -> NewRun:
    """The run that repeats the one in `row`, within `timeout_s` or its time limit. Raises TaskNotFound where `again` is
    no task of the flow."""
    if again is not None and again not in flow.plan.order:
        is_known = again in flow.plan.tasks
        raise TaskNotFound(
            f"The flow {flow.flow_id!r} (version {flow.version}) has no task {again!r}"
            + (" outside on_failure; a run cannot begin with one of those." if is_known else "."),
            next=f"Its tasks: {', '.join(flow.plan.order[:50])}.",
        )
    settled = [
        view.name
        for view in tasks
        if view.state == "completed" or (view.state == "skipped" and not (view.reason or "").startswith(UPSTREAM))
    ]
    demands = scheduling.demands(flow.plan, staff)
    run_id = make_id("run_", at)
    return NewRun(
        run_id=run_id,
        flow_id=flow.flow_id,
        version=flow.version,
        name=row["name"],
        framework=row["framework"],
        priority=row["priority"],
        queue_key=scheduling.strategy.key(
            QueuedRun(run_id=run_id, seq=0, enqueued_at=at, priority=row["priority"], estimate_s=estimate_s)
        ),
        keys=scheduling.keys,
        inputs=row["inputs"],
        total=len(flow.plan.tasks),
        created_at=at,
        timeout_s=row["timeout_s"] if timeout_s is None else timeout_s,
        rerun_of=row["run_id"],
        taken_over=taken_over(outputs, old, flow.plan, settled=settled, again=again, at=at),
        actor=actor,
        estimate_s=estimate_s,
        demands=json.dumps(demands, sort_keys=True) if demands else None,
        trace=current_trace(),
    )
