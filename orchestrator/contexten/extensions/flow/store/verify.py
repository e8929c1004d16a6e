"""Verification: fold the journal and compare it with the state tables; ask SQLite about the file."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from ..states import RUN_MOVES, TASK_MOVES, RunState, TaskState
from .reading import connect
from .records import TaskRow
from .sql import SQL

MAX_PROBLEMS = 100
_RUN_STATES = frozenset(RunState)
_TASK_STATES = frozenset(TaskState)
_TAKE_OVERS = frozenset({"run.lease_taken", "run.released"})


@dataclass(slots=True)
class Verification:
    """What was found."""

    runs: int = 0
    events: int = 0
    integrity: str = "ok"
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note a problem; past MAX_PROBLEMS they are only counted out."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def verify(path: Path) -> Verification:
    """Check the database at `path` through a connection of its own. Raises sqlite3.Error where it cannot be read."""
    found = Verification()
    connection = connect(path)
    try:
        connection.execute("BEGIN")  # one state of the database for all queries
        checks = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        if checks != ["ok"]:
            found.integrity = checks[0]
            for check in checks:
                found.add(f"integrity: {check}")
        for row in connection.execute("PRAGMA foreign_key_check"):
            found.add(f"a row of {row[0]} refers to a missing row of {row[2]}")
        _compare(connection, found)
    finally:
        connection.close()
    return found


def _compare(connection: sqlite3.Connection, found: Verification) -> None:
    runs: dict[str, RunState] = {}
    tasks: dict[tuple[str, str, int], TaskState] = {}
    for run_id, type_, task, item, _attempt in connection.execute(SQL["verify_events"]):
        found.events += 1
        kind, _, state = type_.partition(".")
        if kind == "run":
            if state in _RUN_STATES:
                to = RunState(state)
                before = runs.get(run_id)
                if before is None and to is not RunState.SCHEDULED:
                    found.add(f"run {run_id}: the journal begins with {type_}")
                elif before is not None and to not in RUN_MOVES[before]:
                    found.add(f"run {run_id}: the journal goes from {before} to {to}")
                runs[run_id] = to
            elif type_ in _TAKE_OVERS and runs.get(run_id) is not RunState.RUNNING:
                found.add(f"run {run_id}: {type_} while {runs.get(run_id)}")
        elif state in _TASK_STATES:
            key = (run_id, task, -1 if item is None else item)
            before_task, to_task = tasks.get(key, TaskState.PENDING), TaskState(state)
            if to_task not in TASK_MOVES[before_task]:
                found.add(f"run {run_id} task {task}: the journal goes from {before_task} to {to_task}")
            tasks[key] = to_task
    _compare_states(connection, found, runs, tasks)


def _compare_states(
    connection: sqlite3.Connection,
    found: Verification,
    runs: dict[str, RunState],
    tasks: dict[tuple[str, str, int], TaskState],
) -> None:
    done: dict[str, int] = {}
    for run_id, task, item, state, reason in connection.execute(SQL["verify_tasks"]):
        folded = tasks.pop((run_id, task, item), TaskState.PENDING)
        if folded != state:
            found.add(f"run {run_id} task {task}: the table says {state}, the journal {folded}")
        if item < 0 and TaskRow(task, state=TaskState(state), reason=reason).is_done:
            done[run_id] = done.get(run_id, 0) + 1
    for run_id, state, _total, completed in connection.execute(SQL["verify_runs"]):
        found.runs += 1
        folded_run = runs.pop(run_id, None)
        if folded_run != state:
            found.add(f"run {run_id}: the table says {state}, the journal {folded_run}")
        if completed != done.get(run_id, 0):
            found.add(f"run {run_id}: the table counts {completed} tasks as completed, it has {done.get(run_id, 0)}")
    for run_id in runs:
        found.add(f"run {run_id}: in the journal, not in the table")
    for run_id, task, _item in tasks:
        found.add(f"run {run_id} task {task}: in the journal, not in the table")
