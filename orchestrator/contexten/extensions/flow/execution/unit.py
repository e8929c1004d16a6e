"""What a run keeps in memory of its tasks: the rows of the state table, and what is under way now."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..definition import TaskNode
from ..recovery.breaker import Ticket
from ..states import TaskState
from ..store import CachedOutput, TaskRow
from .attempt import Attempt
from .timers import Alarm

if TYPE_CHECKING:
    from .run import RunExecution

_UNREAD: Any = object()


class Lookup(NamedTuple):
    """An answer of the cache."""

    key: str
    """The digest that was asked for."""
    found: CachedOutput | None


@dataclass(slots=True, eq=False)
class Unit:
    """A task, or one item of its for_each. Its run's execution alone reads and changes it."""

    row: TaskRow
    node: TaskNode
    attempt: Attempt | None = None
    is_working: bool = False
    """From the draft that starts an attempt until its end is taken from the mailbox."""
    alarm: Alarm | None = None
    child: RunExecution | None = None
    tickets: tuple[Ticket, ...] = ()
    """Of the attempt under way, for the circuits that it began in."""
    is_preparing: bool = False
    """A sub-flow's definition, or the cache, is being read."""
    lookup: Lookup | None = None
    """What the cache had, once that is known."""
    _value: Any = _UNREAD

    @property
    def is_busy(self) -> bool:
        """Whether something works on it in this process, rather than it waiting for a time."""
        if self.is_working or self.is_preparing:
            return True
        if self.child is not None:
            return not self.child.is_idle
        return self.row.state is TaskState.WAITING and self.row.child_run_id is not None  # about to be driven

    @property
    def value(self) -> Any:
        """The output as it was recorded, read when it is first asked for; None where there is none."""
        if self._value is _UNREAD:
            self._value = json.loads(self.row.output.text) if self.row.output is not None else None
        return self._value

    @property
    def error(self) -> dict[str, Any] | None:
        """Why it failed, as templates see it."""
        return json.loads(self.row.error) if self.row.error is not None else None

    def disarm(self) -> None:
        """Forget its alarm."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None


@dataclass(slots=True, eq=False)
class Fan:
    """A for_each under way: its list, and its items by number."""

    unit: Unit
    values: list[Any]
    units: dict[int, Unit] = field(default_factory=dict)
    waiting: deque[int] = field(default_factory=deque)
    """Items that have not started."""
    active: int = 0
    """Items that have started and not ended."""
    first_failure: Unit | None = None

    @property
    def is_over(self) -> bool:
        """Whether no item will move any more."""
        if self.active:
            return False
        return not self.waiting or self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether a failed item keeps the others from starting."""
        return self.first_failure is not None and not self.unit.node.task.continue_on_item_failure
