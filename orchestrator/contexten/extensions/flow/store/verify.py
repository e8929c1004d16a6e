"""Verification: fold the journal and compare it with the state tables; ask SQLite about the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ..errors import StoreCorrupt
from ..states import RUN_MOVES, TASK_MOVES, DeliveryState, RunState, TaskState
from .database import not_readable, schema_level
from .reading import connect
from .records import TaskRow
from .sql import SQL

MAX_PROBLEMS = 100
_RUN_STATES = frozenset(RunState)
_TASK_STATES = frozenset(TaskState)
_DELIVERY_STATES = {
    f"trigger.{state}": state for state in (DeliveryState.STARTED, DeliveryState.FILTERED, DeliveryState.FAILED)
}
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
    """Check the database at `path` through a connection of its own, which changes nothing and makes no server of
    anybody. Raises StoreError where it cannot be read."""
    try:
        with closing(connect(path)) as connection:
            return _verify(connection)
    except sqlite3.Error as error:
        raise not_readable(error) from error


def _verify(connection: sqlite3.Connection) -> Verification:
    found = Verification()
    connection.execute("BEGIN")  # one state of the database for all queries
    if not schema_level(connection):
        raise StoreCorrupt("The file holds no database.", next="Choose another file with --db.")
    checks = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    if checks != ["ok"]:
        found.integrity = checks[0]
        for check in checks:
            found.add(f"integrity: {check}")
    for row in connection.execute("PRAGMA foreign_key_check"):
        found.add(f"a row of {row[0]} refers to a missing row of {row[2]}")
    _compare(connection, found)
    if "deliveries" in {row[0] for row in connection.execute(SQL["verify_tables"])}:  # a backup may be older
        _compare_deliveries(connection, found)
    return found


def _compare(connection: sqlite3.Connection, found: Verification) -> None:
    """Run by run, so that it needs memory for one of them only: all three are read in the order of the runs' ids."""
    told = merge(
        (("event", *row) for row in connection.execute(SQL["verify_events"])),
        (("task", *row) for row in connection.execute(SQL["verify_tasks"])),
        (("run", *row) for row in connection.execute(SQL["verify_runs"])),
        key=itemgetter(1),
    )
    for run_id, entries in groupby(told, key=itemgetter(1)):
        run = _Run(run_id, found)
        for kind, _, *entry in entries:
            getattr(run, kind)(*entry)
        run.end()


class _Run:
    """One run, folded from the journal, then compared with its rows."""

    def __init__(self, run_id: str, found: Verification) -> None:
        self._run_id = run_id
        self._found = found
        self._state: RunState | None = None
        self._tasks: dict[tuple[str, int], TaskState] = {}
        self._done = 0
        self._has_row = False

    def _add(self, problem: str, task: str | None = None) -> None:
        self._found.add(f"run {self._run_id}{f' task {task}' if task else ''}: {problem}")

    def event(self, type_: str, task: str, item: int | None) -> None:
        """The journal's next entry."""
        self._found.events += 1
        kind, _, state = type_.partition(".")
        if kind == "run":
            if state in _RUN_STATES:
                to = RunState(state)
                if self._state is None and to is not RunState.SCHEDULED:
                    self._add(f"the journal begins with {type_}")
                elif self._state is not None and to not in RUN_MOVES[self._state]:
                    self._add(f"the journal goes from {self._state} to {to}")
                self._state = to
            elif type_ in _TAKE_OVERS and self._state is not RunState.RUNNING:
                self._add(f"{type_} while {self._state}")
        elif state in _TASK_STATES:
            key = (task, -1 if item is None else item)
            before, to_task = self._tasks.get(key, TaskState.PENDING), TaskState(state)
            if to_task not in TASK_MOVES[before]:
                self._add(f"the journal goes from {before} to {to_task}", task)
            self._tasks[key] = to_task

    def task(self, task: str, item: int, state: str, reason: str | None) -> None:
        """A task's row, after all entries."""
        folded = self._tasks.pop((task, item), TaskState.PENDING)
        if folded != state:
            self._add(f"the table says {state}, the journal {folded}", task)
        if item < 0 and TaskRow(task, state=TaskState(state), reason=reason).is_done:
            self._done += 1

    def run(self, state: str, completed: int) -> None:
        """The run's row, after all tasks."""
        self._found.runs += 1
        self._has_row = True
        if self._state != state:
            self._add(f"the table says {state}, the journal {self._state}")
        if completed != self._done:
            self._add(f"the table counts {completed} tasks as completed, it has {self._done}")

    def end(self) -> None:
        """All was told."""
        if not self._has_row:
            self._add("in the journal, not in the table")
        for task, _ in self._tasks:
            self._add("in the journal, not in the table", task)


def _compare_deliveries(connection: sqlite3.Connection, found: Verification) -> None:
    """Delivery by delivery, as the runs. Entries may be pruned before it, and it before them where it does not wait."""
    told = merge(
        (
            (delivery_id, _DELIVERY_STATES.get(type_, DeliveryState.ACCEPTED), None, has_trigger)
            for delivery_id, type_, has_trigger in connection.execute(SQL["verify_delivery_events"])
        ),
        ((delivery_id, None, state, True) for delivery_id, state in connection.execute(SQL["verify_deliveries"])),
        key=itemgetter(0),
    )
    for delivery_id, entries in groupby(told, key=itemgetter(0)):
        folded, recorded, has_trigger = None, None, False
        for _, told_state, state, is_there in entries:
            folded, recorded, has_trigger = told_state or folded, state or recorded, is_there
        if recorded is None:
            if folded is DeliveryState.ACCEPTED and has_trigger:
                found.add(f"delivery {delivery_id}: in the journal, not in the table")
        elif folded is not None and folded != recorded:
            found.add(f"delivery {delivery_id}: the table says {recorded}, the journal {folded}")
    for name, place in connection.execute(SQL["verify_consumers"]):
        found.add(f"the journal was read up to {place} for {name}, and ends before that")
