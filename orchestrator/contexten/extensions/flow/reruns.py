"""Running again: a new run that takes over the recorded outputs that still hold."""

from __future__ import annotations

from collections.abc import Collection

from .definition import Plan
from .planview import predecessors
from .states import TaskState
from .store import TaskRow
from .store.records import StoredText


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
