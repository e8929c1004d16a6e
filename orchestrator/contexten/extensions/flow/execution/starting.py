"""Starting tasks: what is ready, what has room, and what a start of each kind means."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..agents.ability import KINDS_WITHOUT_AGENT
from ..clock import iso
from ..definition import MAX_S, NotJson, check_json
from ..errors import AttemptError
from ..states import TaskState
from ..store import StoredText, TaskRow
from .admission import Hold
from .attempts import Attempts
from .caching import serve
from .draft import Draft
from .host import Host
from .outcome import Failed
from .progression import Verdict
from .tasks import RunTasks
from .unit import Fan, Unit

if TYPE_CHECKING:
    from .run import RunExecution


Demand = tuple[str, tuple[str, ...], str | None, str | None, frozenset[str]]


class Starter:
    """The tasks and items of one run that could start, and those that have."""

    def __init__(self, run: RunExecution) -> None:
        self._run = run
        self._host: Host = run.host
        self._tasks: RunTasks = run.tasks
        self._attempts = Attempts(run)
        self.ready: deque[Unit | Fan] = deque()
        """What waits for room or for an agent, in order."""
        self.is_starved = False
        """Whether something waits for an agent, rather than for room."""
        self.held: dict[Unit, Hold] = {}
        """What is held up by more than busy agents, and why."""
        self._interrupted: list[Unit] = []

    def restore(self, units: Iterable[Unit]) -> None:
        """Take up the units that an earlier owner left behind."""
        for unit in units:
            row = unit.row
            if row.item >= 0:
                fan = self._tasks.fans.get(row.task)
                if fan is None:
                    continue
                fan.units[row.item] = unit
                if row.state.is_terminal:
                    if row.state is TaskState.FAILED and fan.first_failure is None:
                        fan.first_failure = unit
                    continue
                fan.active += 1
            self._tasks.live[unit] = None
            if row.state is TaskState.RUNNING:
                self._interrupted.append(unit)
            elif row.wake_at is not None:
                self._tasks.arm(unit, row.wake_at)  # where it is past, the run hears of it before it takes a turn
        for fan in self._tasks.fans.values():
            self._tasks.live[fan.unit] = None
            fan.waiting.extend(index for index in range(len(fan.values)) if index not in fan.units)
            self.ready.append(fan)

    def holds(self) -> dict[str, str]:
        """What holds tasks up, in words, by task."""
        now = self._host.clock.monotonic()
        crowded = {}
        for entry in self.ready:
            unit = entry.unit if isinstance(entry, Fan) else entry
            task = unit.node.task
            crowd = self._run.staff.crowd(task) if task.type not in KINDS_WITHOUT_AGENT else {}
            if crowd:
                places = ", ".join(f"{name} ({places} of {places} taken)" for name, places in crowd.items())
                crowded[unit.row.task] = f"a free place of agent {places}"
        return crowded | {
            unit.row.task: self._host.admission.told(hold)
            for unit, hold in self.held.items()
            if hold.until > now and unit.row.state in (TaskState.PENDING, TaskState.RETRYING)
        }

    def start(self, draft: Draft) -> bool:
        """Start what can be started; answers whether something ended at once, so that more may be decided."""
        if self._host.is_stopping:
            return False
        has_ended = False
        for unit in self._interrupted:
            has_ended |= self._take_up(unit, draft)
        self._interrupted.clear()
        held: deque[Unit | Fan] = deque()
        refused: set[Demand | None] = set()  # demands for which no agent is free in this turn
        room: dict[str, int] = {}  # tasks that may still start in this turn, by stage
        self.is_starved = False
        while self.ready:
            entry = self.ready.popleft()
            if isinstance(entry, Fan):
                if self._start_items(entry, draft):
                    held.append(entry)
                has_ended |= entry.unit.row.state.is_terminal
                continue
            limit = self._limit(entry, room)
            if _demand(entry) in refused or (limit is not None and room[limit] <= 0):
                held.append(entry)
            elif not self._start(entry, draft):
                held.append(entry)
                if entry not in self.held:  # a circuit holds each for a time of its own
                    refused.add(_demand(entry))
                self.is_starved = True
            elif entry.row.state.is_terminal:
                has_ended = True
            elif limit is not None:
                room[limit] -= 1
        self.ready = held
        if self.is_starved:
            self._host.wait_for_agent(self._run)
        return has_ended

    def _take_up(self, unit: Unit, draft: Draft) -> bool:
        """Go on with a unit whose attempt was cut off by the end of its process."""
        row, limit = unit.row, self._host.settings.max_interruptions
        if unit.node.task.on_interrupt == "fail" and row.interruptions:
            message = "The attempt was cut off by a crash, and on_interrupt is fail."
        elif row.interruptions >= limit:
            message = f"The attempt was cut off by a crash {row.interruptions} times; the limit is {limit}."
        else:
            self.ready.append(unit)
            return False
        self._tasks.fail(unit, Failed(kind="interrupted", message=message), draft, final=True)
        return True

    def _limit(self, unit: Unit, room: dict[str, int]) -> str | None:
        """The stage whose max_parallel the unit's start counts against, with its room noted; None where none does."""
        if unit.row.item >= 0 or unit.row.state is not TaskState.PENDING or unit.node.on_failure_of is not None:
            return None
        if unit.lookup is not None:  # it counts already
            return None
        stage = self._tasks.progression.stage(unit.node.stage)
        if stage.max_parallel is None:
            return None
        if stage.name not in room:
            room[stage.name] = stage.max_parallel - self._tasks.active_in(stage.name)
        return stage.name

    def _start(self, unit: Unit, draft: Draft) -> bool:
        """Start a unit; answers False where it must wait for an agent."""
        row, task = unit.row, unit.node.task
        if row.item < 0 and row.state is TaskState.PENDING:
            verdict = self._tasks.progression.still_wanted(row.task)
            if verdict is not None and verdict.verdict is Verdict.SKIPPED:
                draft.move(unit, TaskState.SKIPPED, reason=verdict.reason, data={"reason": verdict.reason})
                self._tasks.progression.finish(row.task, TaskState.SKIPPED, verdict.reason)
                return True
            if unit.node.for_each is not None:
                self._start_fan(unit, draft)
                return True
        if unit.node.cache_key is not None and row.state is TaskState.PENDING and serve(self._run, unit, draft):
            return True
        if task.type == "wait":
            self._start_wait(unit, draft)
            return True
        if task.type == "flow":
            self._tasks.live[unit] = None
            self._run.subflows.prepare(unit, draft)
            return True
        if self._host.handover.awaits_others(self._run, unit.node):
            return False
        earlier = self.held.get(unit) if self.held else None
        agent = self._host.admission.admit(unit, self._run.staff, earlier)
        if agent is None:
            return False
        if isinstance(agent, Hold):
            self.held[unit] = agent
            return False
        if earlier is not None:
            del self.held[unit]
        draft.reserved.append((agent, task))
        unit.is_working = True
        draft.move(
            unit,
            TaskState.RUNNING,
            attempts=row.attempts + 1,
            agent=agent.name,
            started_at=row.started_at or draft.at,
            wake_at=None,
        )
        self._tasks.live[unit] = None
        draft.effects.append(partial(self._attempts.begin, unit, agent))
        return True

    # for_each
    def _start_fan(self, unit: Unit, draft: Draft) -> None:
        limit = self._host.settings.max_for_each_items
        try:
            values = unit.node.for_each.render(self._tasks.scope_of(unit)) if unit.node.for_each is not None else []
            if not isinstance(values, list | tuple):
                raise AttemptError(f"for_each is not a list but {type(values).__name__}", kind="invalid")
            if len(values) > limit:
                raise AttemptError(f"for_each has {len(values)} items; the limit is {limit}", kind="invalid")
            text = check_json(list(values), max_bytes=self._host.settings.max_output_bytes)
        except AttemptError as error:
            self._tasks.fail(unit, Failed(kind=error.kind, message=error.message), draft, final=True)
            return
        except NotJson as error:
            self._tasks.fail(unit, Failed(kind="invalid", message=f"for_each {error}"), draft, final=True)
            return
        if not values:
            self._tasks.complete(unit, StoredText.of("[]"), draft)
            return
        draft.move(
            unit,
            TaskState.RUNNING,
            items=StoredText.of(text),
            started_at=draft.at,
            data={"items": len(values)},
        )
        self._tasks.live[unit] = None
        fan = Fan(unit, list(values))
        fan.waiting.extend(range(len(values)))
        self._tasks.fans[unit.row.task] = fan
        self.ready.append(fan)

    def _start_items(self, fan: Fan, draft: Draft) -> bool:
        """Start items while there is room; answers whether some are left."""
        limit = fan.unit.node.task.max_parallel or len(fan.values)
        while fan.waiting and not fan.is_stopped and fan.active < limit:
            index = fan.waiting[0]
            unit = fan.units.get(index) or Unit(TaskRow(fan.unit.row.task, index), fan.unit.node)
            fan.units[index] = unit
            fan.active += 1
            if not self._start(unit, draft):
                fan.active -= 1
                self.is_starved = True
                return True
            fan.waiting.popleft()
        if fan.is_over:
            self._tasks.finish_fan(fan, draft)
            return False
        return bool(fan.waiting)

    # wait
    def _start_wait(self, unit: Unit, draft: Draft) -> None:
        try:
            due = self._due(unit.node.parameters.render(self._tasks.scope_of(unit)), draft.at)
        except AttemptError as error:
            self._tasks.fail(unit, Failed(kind=error.kind, message=error.message), draft, final=True)
            return
        if due <= draft.at:
            value = {"waited_until": iso(due)}
            self._tasks.complete(unit, StoredText.of(check_json(value, max_bytes=1000)), draft)
            return
        draft.move(unit, TaskState.WAITING, started_at=draft.at, wake_at=due, data={"until": due})
        self._tasks.live[unit] = None
        draft.effects.append(partial(self._tasks.arm, unit, due))

    @staticmethod
    def _due(parameters: Any, now: float) -> float:
        seconds, until = parameters.get("seconds"), parameters.get("until")
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= MAX_S:
            return now + seconds
        if isinstance(until, str):
            try:
                at = datetime.fromisoformat(until)
            except ValueError as error:
                raise AttemptError("until is not an ISO 8601 time", kind="invalid") from error
            if at.tzinfo is None:
                raise AttemptError("until has no time zone; end it with Z or an offset", kind="invalid")
            due = (at - datetime.fromtimestamp(0, UTC)).total_seconds()
            if due > now + MAX_S:
                raise AttemptError(f"until is more than {MAX_S:g} s ahead", kind="invalid")
            return max(due, 0.0)
        raise AttemptError("wait takes seconds (a number from 0) or until (an ISO 8601 time)", kind="invalid")


def _demand(unit: Unit) -> Demand | None:
    """What decides which agents can take a unit; None where it needs none."""
    task = unit.node.task
    if task.type in KINDS_WITHOUT_AGENT or (unit.row.item < 0 and unit.node.for_each is not None):
        return None
    is_asked_first = unit.node.cache_key is not None and unit.row.state is TaskState.PENDING
    if is_asked_first and (unit.lookup is None or unit.lookup.found is not None):
        return None  # the cache may serve it
    error = unit.row.error  # agents to avoid are kept with it
    return task.type, task.required_tools, task.preferred_agent_type, error, unit.node.secrets
