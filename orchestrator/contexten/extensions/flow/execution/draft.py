"""A change of a run while it is put together: moves of tasks, journal entries, what to do once it is durable."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

from ..agents.protocol import Agent
from ..definition import Task
from ..states import RunState, TaskState
from ..store import CacheEntry, NewRun, RunMove, StoredText, TaskMove
from ..store.records import Remark
from .unit import Unit


class Draft:
    """One change. `effects` run after its commit, and never if it is refused."""

    __slots__ = (
        "_last",
        "at",
        "cache_hits",
        "cached",
        "children",
        "completed",
        "effects",
        "end",
        "logs",
        "moves",
        "reserved",
    )

    def __init__(self, at: float) -> None:
        self.at = at
        self.moves: list[TaskMove] = []
        self.logs: list[Remark] = []
        self.children: list[NewRun] = []
        self.effects: list[Callable[[], None]] = []
        self.reserved: list[tuple[Agent, Task]] = []
        """Agents with a place taken for the attempts that the effects begin, and the task of each."""
        self.cached: list[CacheEntry] = []
        """Outputs to keep for equal tasks of other runs."""
        self.cache_hits = 0
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

    def log(self, unit: Unit, name: str, data: dict[str, Any]) -> None:
        """Enter what else happened to a unit in the journal, as JSON data."""
        row = unit.row
        text = json.dumps(data, ensure_ascii=False)
        item = None if row.item < 0 else row.item
        self.logs.append(Remark(len(self.moves), name, row.task, item, row.attempts, text))

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

    def as_move(self, run_id: str, flow_id: str, fence: int) -> RunMove:
        """The change as the store takes it."""
        end = self.end
        return RunMove(
            run_id=run_id,
            flow_id=flow_id,
            fence=fence,
            at=self.at,
            to=end.to if end else None,
            tasks=tuple(self.moves),
            children=tuple(self.children),
            completed=self.completed,
            wake_at=end.wake_at if end else None,
            error=end.error if end else None,
            failed_tasks=end.failed_tasks if end else None,
            output=end.output if end else None,
            reason=end.reason if end else None,
            logs=tuple(self.logs),
            cached=tuple(self.cached),
            cache_hits=self.cache_hits,
        )


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

    def with_failures(self, failed_tasks: list[str]) -> End:
        """The same end, with further failed tasks."""
        known: list[str] = json.loads(self.failed_tasks or "[]")
        new = [name for name in failed_tasks if name not in known]
        return End(self.to, error=self.error, failed_tasks=known + new, output=self.output)
