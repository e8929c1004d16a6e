"""Starting tasks: what is ready, what has room, and what a start of each kind means."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..agents.protocol import Agent, AttemptContext
from ..clock import make_id
from ..definition import NotJson, Scope, check_inputs, check_json
from ..errors import AttemptError, FlowError
from ..states import TaskState
from ..store import ClaimedRun, NewRun, StoredText, TaskRow
from ..submission import KINDS_WITHOUT_AGENT, check_agents
from .attempt import Attempt
from .draft import Draft
from .host import Host
from .messages import AttemptEnded, Logged, SubflowReady
from .outcome import Failed, Outcome
from .progression import Verdict
from .tasks import RunTasks
from .unit import Fan, Unit

if TYPE_CHECKING:
    from .run import RunExecution

logger = logging.getLogger(__name__)

MAX_DEPTH = 20  # of sub-flows in sub-flows
MAX_LOG_LINES = 1000  # of one attempt: an agent that floods its log must not flood the journal
MAX_LOG_CHARS = 4000
MAX_WAIT_S = 1e9


Demand = tuple[tuple[str, ...], str | None]


class Starter:
    """The tasks and items of one run that could start, and those that have."""

    def __init__(self, run: RunExecution) -> None:
        self._run = run
        self._host: Host = run.host
        self._tasks: RunTasks = run.tasks
        self.ready: deque[Unit | Fan] = deque()
        """What waits for room or for an agent, in order."""
        self.is_starved = False
        """Whether something waits for an agent, rather than for room."""
        self._interrupted: list[Unit] = []

    def restore(self, units: Iterable[Unit]) -> None:
        """Take up the units that an earlier owner left behind."""
        now = self._host.clock.timestamp()
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
                self._tasks.arm(unit, row.wake_at - now)  # where it is past, the run hears of it before it takes a turn
        for fan in self._tasks.fans.values():
            self._tasks.live[fan.unit] = None
            fan.waiting.extend(index for index in range(len(fan.values)) if index not in fan.units)
            self.ready.append(fan)

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
        self.is_starved = False
        while self.ready:
            entry = self.ready.popleft()
            if isinstance(entry, Fan):
                if self._start_items(entry, draft):
                    held.append(entry)
                has_ended |= entry.unit.row.state.is_terminal
            elif _demand(entry) in refused or not self._has_room(entry):
                held.append(entry)
            elif not self._start(entry, draft):
                held.append(entry)
                refused.add(_demand(entry))
                self.is_starved = True
            else:
                has_ended |= entry.row.state.is_terminal
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

    def _has_room(self, unit: Unit) -> bool:
        if unit.row.item >= 0 or unit.row.state is not TaskState.PENDING:
            return True
        stage = self._tasks.progression.stage(unit.node.stage)
        if stage.max_parallel is None:
            return True
        active = sum(
            1
            for other in self._tasks.live
            if other.row.item < 0 and other.node.stage == stage.name and not other.row.state.is_terminal
        )
        return active < stage.max_parallel

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
        if task.type == "wait":
            self._start_wait(unit, draft)
            return True
        if task.type == "flow":
            self._tasks.live[unit] = None
            unit.is_preparing = True
            draft.effects.append(partial(self._host.spawn, self._prepare_subflow, unit, name=f"sub-flow {row.task}"))
            if draft.is_empty:  # nothing to make durable first
                draft.effects.pop()()
            return True
        agent = self._host.registry.try_acquire(task)
        if agent is None:
            return False
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
        draft.effects.append(partial(self._launch, unit, agent))
        return True

    def _scope(self, unit: Unit) -> Scope:
        if unit.row.item < 0:
            return self._tasks.scope
        return self._tasks.scope.for_item(self._tasks.fans[unit.row.task].values[unit.row.item], unit.row.item)

    # Agents
    def _launch(self, unit: Unit, agent: Agent) -> None:
        row, run = unit.row, self._run
        number = row.attempts - row.interruptions
        place = row.task if row.item < 0 else f"{row.task}[{row.item}]"
        lines = 0

        def log(level: str, message: str) -> None:
            nonlocal lines
            lines += 1
            if lines <= MAX_LOG_LINES:
                text = self._host.vault.mask(str(message)).encode("utf-8", "replace").decode()[:MAX_LOG_CHARS]
                word = str(level).encode("utf-8", "replace").decode()[:16]
                self._host.call_soon(partial(run.post, Logged(unit, word, text)))

        inputs, given = self._tasks.given()
        context = AttemptContext(
            run_id=run.run_id,
            flow_id=run.flow_id,
            task=row.task,
            attempt=number,
            attempt_id=f"{run.run_id}:{place}:{number}",
            inputs=inputs,
            context=given,
            item_index=None if row.item < 0 else row.item,
            timeout_s=unit.node.task.timeout_s,
            log_sink=log,
        )
        unit.attempt = Attempt(unit.node, agent, context)
        self._host.spawn(self._work, unit, unit.attempt, name=f"{run.run_id} {place}")

    async def _work(self, unit: Unit, attempt: Attempt) -> None:
        host = self._host
        outcome: Outcome
        try:
            outcome = await attempt.run(
                self._scope(unit),
                timers=host.timers,
                vault=host.vault,
                max_output_bytes=host.settings.max_output_bytes,
            )
        except asyncio.CancelledError:
            if host.is_stopping:  # the whole service is torn down
                raise
            _uncancel()
            outcome = Failed(kind="agent_failure", message=f"The agent {attempt.agent.name!r} cancelled itself.")
        finally:
            unit.attempt = None
            host.registry.release(attempt.agent, unit.node.task)
        self._run.post(AttemptEnded(unit, outcome))
        host.agents_changed()  # after its own run has had its turn: that may have taken the place again

    # for_each
    def _start_fan(self, unit: Unit, draft: Draft) -> None:
        limit = self._host.settings.max_for_each_items
        try:
            values = unit.node.for_each.render(self._tasks.scope) if unit.node.for_each is not None else []
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
            due = self._due(unit.node.parameters.render(self._scope(unit)), draft.at)
        except AttemptError as error:
            self._tasks.fail(unit, Failed(kind=error.kind, message=error.message), draft, final=True)
            return
        if due <= draft.at:
            value = {"waited_until": datetime.fromtimestamp(due, UTC).isoformat()}
            self._tasks.complete(unit, StoredText.of(check_json(value, max_bytes=1000)), draft)
            return
        draft.move(unit, TaskState.WAITING, started_at=draft.at, wake_at=due, data={"until": due})
        self._tasks.live[unit] = None
        draft.effects.append(partial(self._tasks.arm, unit, due - draft.at))

    @staticmethod
    def _due(parameters: Any, now: float) -> float:
        seconds, until = parameters.get("seconds"), parameters.get("until")
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= MAX_WAIT_S:
            return now + seconds
        if isinstance(until, str):
            try:
                at = datetime.fromisoformat(until)
            except ValueError as error:
                raise AttemptError("until is not an ISO 8601 time", kind="invalid") from error
            if at.tzinfo is None:
                raise AttemptError("until has no time zone; end it with Z or an offset", kind="invalid")
            due = (at - datetime.fromtimestamp(0, UTC)).total_seconds()
            if due > now + MAX_WAIT_S:
                raise AttemptError(f"until is more than {MAX_WAIT_S:g} s ahead", kind="invalid")
            return max(due, 0.0)
        raise AttemptError("wait takes seconds (a number from 0) or until (an ISO 8601 time)", kind="invalid")

    # Sub-flows
    async def _prepare_subflow(self, unit: Unit) -> None:
        run, flow_id = self._run, ""
        try:
            parameters = unit.node.parameters.render(self._scope(unit))
            flow_id = str(parameters.get("flow_id"))
            if _depth(run) >= MAX_DEPTH:
                raise AttemptError(f"sub-flows are nested deeper than {MAX_DEPTH}", kind="invalid")
            plan, version = await self._host.plans.plan_of(flow_id)
            check_agents(plan, self._host.registry)
            inputs, issues = check_inputs(plan.definition, parameters.get("inputs") or {})
            if issues:
                raise AttemptError(
                    f"the inputs do not fit flow {flow_id!r}: {issues[0].path} {issues[0].message}", kind="invalid"
                )
            message = SubflowReady(unit, flow_id, plan, version, json.dumps(inputs, ensure_ascii=False))
        except AttemptError as error:
            message = SubflowReady(unit, flow_id, None, problem=error.message)
        except FlowError as error:
            message = SubflowReady(unit, flow_id, None, problem=error.message)
        except Exception as error:  # whatever it is, the task must not wait for ever
            logger.exception("a sub-flow could not be prepared", extra={"run_id": run.run_id})
            message = SubflowReady(unit, flow_id, None, problem=f"it could not be prepared: {type(error).__name__}")
        run.post(message)

    def start_subflow(self, message: SubflowReady, draft: Draft) -> None:
        """Record a sub-flow's run together with the task that waits for it."""
        unit, plan, run = message.unit, message.plan, self._run
        row = unit.row
        unit.is_preparing = False
        if plan is None:
            self._tasks.fail(unit, Failed(kind="invalid", message=message.problem), draft, final=True)
            return
        if run.is_ending:
            return
        child = NewRun(
            run_id=make_id("run_", draft.at),
            flow_id=message.flow_id,
            version=message.version,
            name=plan.definition.name or message.flow_id,
            framework=run.claimed.framework,
            priority=run.claimed.priority,
            queue_key=draft.at,
            inputs=message.inputs,
            total=len(plan.tasks),
            created_at=draft.at,
            parent_run_id=run.run_id,
            parent_task=row.task,
            parent_item=None if row.item < 0 else row.item,
        )
        claimed = ClaimedRun(
            run_id=child.run_id,
            flow_id=child.flow_id,
            version=child.version,
            name=child.name,
            framework=child.framework,
            priority=child.priority,
            fence=1,
            inputs=child.inputs,
            timeout_s=None,
            request=None,
            reason=None,
            completed=0,
            created_at=draft.at,
            started_at=draft.at,
            paused_s=0.0,
            parent_run_id=child.parent_run_id,
            parent_task=child.parent_task,
            parent_item=child.parent_item,
        )
        draft.move(
            unit,
            TaskState.WAITING,
            attempts=row.attempts + 1,
            started_at=row.started_at or draft.at,
            child_run_id=child.run_id,
            wake_at=None,
            data={"child_run_id": child.run_id},
        )
        draft.children.append(child)
        draft.effects.append(partial(run.adopt, unit, claimed, plan))


def _demand(unit: Unit) -> Demand | None:
    """What decides which agents can take a unit; None where it needs none."""
    task = unit.node.task
    if task.type in KINDS_WITHOUT_AGENT or (unit.row.item < 0 and unit.node.for_each is not None):
        return None
    return task.required_tools, task.preferred_agent_type


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _depth(run: RunExecution) -> int:
    depth, parent = 0, run.parent
    while parent is not None:
        depth, parent = depth + 1, parent.parent
    return depth
