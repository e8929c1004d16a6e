"""A change of a run while it is put together: moves of tasks, journal entries, what to do once it is durable."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

from ..agents.protocol import Agent
from ..definition import Task
from ..states import RunState, TaskState
from ..store import NewRun, StoredText, TaskMove
from .unit import Unit

Log = tuple[str, str | None, int | None, int | None, str]


class Draft:
    """One change. `effects` run after its commit, and never if it is refused."""

    __slots__ = ("_last", "at", "children", "completed", "effects", "end", "logs", "moves", "reserved")

    def __init__(self, at: float) -> None:
        self.at = at
        self.moves: list[TaskMove] = []
        self.logs: list[Log] = []
        self.children: list[NewRun] = []
        self.effects: list[Callable[[], None]] = []
        self.reserved: list[tuple[Agent, Task]] = []
        """Agents with a place taken for the attempts that the effects begin, and the task of each."""
        self.completed = 0
        self.end: End | None = None
        self._last: dict[Unit, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to make durable."""
        return not (self.moves or self.logs or self.end)

    def units(self) -> Iterable[Unit]:
        """The units that it moves."""
        return self._last

    def move(self, unit: Unit, to: TaskState, *, data: dict[str, Any] | None = None, **changes: Any) -> None:
        """Move a unit: its row is changed here and now, the database with the commit."""
        row = unit.row
        before = row.state
        earlier = self._last.get(unit)
        if earlier is not None:  # the earlier move keeps the row as it was
            self.moves[earlier] = self.moves[earlier]._replace(row=copy.copy(row))
        for name, value in changes.items():
            setattr(row, name, value)
        row.state = to
        if to.is_terminal:
            row.ended_at = self.at
            row.wake_at = None
            if row.item < 0 and row.is_done:
                self.completed += 1
        self._last[unit] = len(self.moves)
        text = json.dumps(data, ensure_ascii=False) if data else None
        self.moves.append(TaskMove(row, before, text))


class End:
    """How a run leaves `running`."""

    __slots__ = ("error", "failed_tasks", "output", "reason", "to", "wake_at")

    def __init__(
        self,
        to: RunState,
        *,
        error: str | None = None,
        failed_tasks: list[str] | None = None,
        output: StoredText | None = None,
        reason: str | None = None,
        wake_at: float | None = None,
    ) -> None:
        self.to = to
        self.error = error
        self.failed_tasks = json.dumps(failed_tasks) if failed_tasks else None
        self.output = output
        self.reason = reason
        self.wake_at = wake_at
