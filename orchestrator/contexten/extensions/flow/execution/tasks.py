"""The tasks of one run in memory: where each stands, what an outcome makes of it, and how they end together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

from ..agents.failures import kept_text
from ..agents.protocol import Ending
from ..definition import FAILURE_FIELDS, NotJson, Plan, Scope, TaskNode, check_json, copy_json
from ..errors import AttemptError
from ..flows.planview import predecessors
from ..recovery.recovering import Recovery
from ..recovery.retry import RetryDecision, RetryPolicy
from ..states import RunState, TaskState
from ..store import ClaimedRun, StoredText, TaskRow
from .compensation import Compensation
from .draft import Draft, End
from .host import Host
from .next_attempt import changes_of
from .outcome import Failed
from .progression import Decision, Progression, Verdict
from .unit import Fan, Unit


class RunTasks:
    """Units by name, for_eachs under way, and the walk through the plan. Its run's execution alone uses it."""

    def __init__(self, host: Host, claimed: ClaimedRun, plan: Plan, ring: Callable[[Unit], None]) -> None:
        """`ring` is called when the time came for which a unit waited."""
        self._host = host
        self._plan = plan
        self._ring = ring
        self.units: dict[str, Unit] = {}
        self.fans: dict[str, Fan] = {}
        self.live: dict[Unit, None] = {}
        """What has started and not ended."""
        self._inputs = json.loads(claimed.inputs)
        self.scope = Scope(
            inputs=self._inputs,
            context=dict(plan.definition.context),
            run={
                "id": claimed.run_id,
                "flow_id": claimed.flow_id,
                "name": claimed.name,
                "version": claimed.version,
                "priority": claimed.priority,
            },
            task=self._in_scope,
            secret=host.vault.value,
        )
        self.compensation: Compensation | None = None
        """The walk through the on_failure tasks, where there are any."""
        self._verdict: End | None = None
        """How the run ends after its on_failure tasks, once that is known."""
        self.left_behind = self._restore(claimed.tasks)
        """Units that an earlier owner left unfinished, and ended items of unfinished for_eachs."""

    def _restore(self, rows: list[TaskRow]) -> list[Unit]:
        finished: dict[str, tuple[TaskState, str | None]] = {}
        loose: list[Unit] = []
        for row in rows:
            node = self._plan.tasks.get(row.task)
            if node is None:
                continue
            unit = Unit(row, node)
            if row.item < 0:
                self.units[row.task] = unit
                if row.state.is_terminal:
                    finished[row.task] = (row.state, row.reason)
                    continue
                if row.items is not None:
                    self.fans[row.task] = Fan(unit, json.loads(row.items.text))
                    continue
            loose.append(unit)
        started = self.units.keys() - finished.keys()
        if self._plan.on_failure:
            states = {name: state for name, (state, _) in finished.items()}
            self.compensation = Compensation(self._plan, states, started, self._holds_after_failure)
            finished = {name: end for name, end in finished.items() if self._plan.tasks[name].on_failure_of is None}
        self.progression = Progression(
            self._plan,
            self._host.plans.graph(self._plan),
            finished,
            started,
            lambda template: template.test(self.scope),
        )
        return loose

    def given(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and context for an agent: copies, since it may change them."""
        context = self._plan.definition.context
        return copy_json(self._inputs), copy_json(dict(context))

    def about(self, unit: Unit) -> dict[str, Any]:
        """What is around a unit, for an agent: copies, since it may change them."""
        definition = self._plan.definition
        outputs = {
            name: copy_json(before.value)
            for name in sorted(self._before.get(unit.row.task, unit.node.requires))
            if (before := self.units.get(name)) is not None and before.row.state is TaskState.COMPLETED
        }
        return {"upstream": outputs, "flow_name": definition.name, "flow_description": definition.description}

    @cached_property
    def _before(self) -> dict[str, frozenset[str]]:
        """The tasks directly before each task of a stage."""
        return predecessors(self._plan)

    def find(self, name: str, item: int | None) -> Unit | None:
        """The unit of a task, or of an item of its for_each."""
        if item is None:
            return self.units.get(name)
        fan = self.fans.get(name)
        return fan.units.get(item) if fan is not None else None

    def scope_of(self, unit: Unit) -> Scope:
        """What the templates of a unit see."""
        scope = self.scope if unit.node.on_failure_of is None else self._after_failure(unit.node)
        index = unit.row.item
        return scope if index < 0 else scope.with_values(item=self.fans[unit.row.task].values[index], index=index)

    def _after_failure(self, node: TaskNode) -> Scope:
        """What the templates of an on_failure task see."""
        error = self.units[node.on_failure_of].row.error if node.on_failure_of else self._fatal_error
        cause = json.loads(error or "{}")
        return self.scope.with_values(failure={name: cause.get(name, "") for name in FAILURE_FIELDS})

    def _holds_after_failure(self, node: TaskNode) -> bool:
        return node.when is None or node.when.test(self._after_failure(node))

    @property
    def _fatal_error(self) -> str | None:
        """Why the run ends as failed, while its on_failure tasks run for that."""
        return self._verdict.error if self._verdict is not None else None

    def active_in(self, stage: str) -> int:
        """How many tasks of a stage have started and not ended; a for_each counts as one."""
        return sum(
            unit.row.item < 0 and unit.node.stage == stage and not unit.row.state.is_terminal for unit in self.live
        )

    def _in_scope(self, name: str) -> dict[str, Any]:
        unit = self.units.get(name)
        if unit is None:
            return {"output": None, "state": "pending", "error": None}
        is_complete = unit.row.state is TaskState.COMPLETED
        return {"output": unit.value if is_complete else None, "state": str(unit.row.state), "error": unit.error}

    @property
    def are_busy(self) -> bool:
        """Whether something works on any of them now."""
        return any(unit.is_busy for unit in self.live)

    @property
    def have_attempts(self) -> bool:
        """Whether attempts are under way."""
        return any(unit.attempt is not None for unit in self.live)

    @property
    def completed(self) -> int:
        """How many count as progress."""
        return sum(unit.row.is_done for unit in self.units.values())

    def wake_at(self) -> float | None:
        """The earliest time that any of them waits for."""
        return min((unit.row.wake_at for unit in self.live if unit.row.wake_at is not None), default=None)

    def cut_off(self, why: Ending) -> None:
        """End the attempts in flight."""
        for unit in list(self.live):
            if unit.attempt is not None:
                unit.attempt.end(why)

    def decide(self, draft: Draft) -> list[Unit]:
        """Walk on through the plan; skips and failures are recorded, the ready units answered."""
        ready = []
        decisions = self.progression.decide()
        if self.compensation is not None:
            decisions = chain(decisions, self._compensate(self.compensation))
        for task, verdict, reason in decisions:
            unit = self.units[task] = Unit(TaskRow(task), self._plan.tasks[task])
            if verdict is Verdict.READY:
                ready.append(unit)
            elif verdict is Verdict.SKIPPED:
                draft.move(unit, TaskState.SKIPPED, reason=reason, data={"reason": reason})
            else:
                error = Failed(kind="invalid", message=reason).as_json(task=task, attempt=0)
                draft.move(unit, TaskState.FAILED, error=error, data={"kind": "invalid", "message": reason})
        return ready

    def _compensate(self, compensation: Compensation) -> Iterator[Decision]:
        """Walk on through the on_failure tasks, once all others have ended."""
        if not self.progression.is_done:
            return
        if not compensation.has_begun:
            self._verdict = self._judge()
            failed = [(self.units[name], name) for name in self._failed()]
            failed.sort(key=lambda entry: (entry[0].row.ended_at or 0.0, entry[0].node.index), reverse=True)
            has_run_failed = self._verdict.to is RunState.FAILED
            compensation.begin([name for _, name in failed], has_run_failed=has_run_failed)
        yield from compensation.decide()

    @property
    def have_ended(self) -> bool:
        """Whether none of them will move any more."""
        return self.progression.is_done and (self.compensation is None or self.compensation.is_done)

    # Outcomes
    def complete(self, unit: Unit, text: StoredText, draft: Draft, *, data: dict[str, Any] | None = None) -> None:
        """Record a unit's output; `data` is for the journal."""
        draft.move(unit, TaskState.COMPLETED, data=data, output=text, error=None)
        self._after_end(unit, draft)

    def fail(self, unit: Unit, failure: Failed, draft: Draft, *, final: bool = False) -> None:
        """Record a failed try: the unit is tried again, or has failed."""
        row = unit.row
        failure = replace(failure, message=self._host.vault.mask(failure.message))
        tries = row.attempts - row.interruptions
        decision = failure.decision or self.policy(unit).decide(failure.kind, tries, self._host.clock.random)
        data: dict[str, Any] = {"kind": failure.kind, "message": failure.message}
        if failure.details:
            data["details"] = failure.details
        if row.agent is not None:  # an attempt failed, rather than what comes before one
            tools = [failure.tool] if failure.tool else list(unit.node.task.required_tools)
            data |= {"agent": row.agent, "tools": tools}
        recovery = failure.recovery
        if recovery is not None:
            self._note(unit, recovery, data, draft)
            if recovery.give_up is not None:
                decision = RetryDecision(retry=False, reason=kept_text(recovery.give_up, self._host.vault))
        if decision.retry and not final and row.state is not TaskState.PENDING:
            delay_s = decision.delay_s if recovery is None else recovery.delay_s
            data |= {"delay_s": round(delay_s, 3), "reason": decision.reason}
            wake_at = draft.at + delay_s
            changes = changes_of(recovery, unit) if recovery is not None else {}
            error = failure.as_json(task=row.task, attempt=row.attempts, **changes)
            draft.move(unit, TaskState.RETRYING, data=data, error=error, wake_at=wake_at, child_run_id=None)
            self.arm(unit, wake_at)
            return
        data["reason"] = "it would fail again" if final else decision.reason
        error = failure.as_json(task=row.task, attempt=row.attempts)
        draft.move(unit, TaskState.FAILED, data=data, error=error)
        self._after_end(unit, draft)

    def _note(self, unit: Unit, recovery: Recovery, data: dict[str, Any], draft: Draft) -> None:
        """Enter what recovery did and logged in the journal."""
        vault = self._host.vault
        if recovery.steps:
            data["recovery"] = [kept_text(step, vault) for step in recovery.steps]
        for level, message in recovery.lines:
            draft.log(unit, "task.log", {"level": kept_text(level, vault)[:16], "message": kept_text(message, vault)})

    def policy(self, unit: Unit) -> RetryPolicy:
        """How often, and after what delays, a unit is tried."""
        retry = unit.node.task.retry
        if retry is not None:
            return RetryPolicy.of(retry, self._host.rules.retry)
        if unit.node.task.type == "flow":
            return RetryPolicy(max_attempts=1)  # the sub-flow's own tasks were tried again already
        return self._host.rules.retry

    def arm(self, unit: Unit, at: float) -> None:
        """Ring for a unit at a time, in seconds since the epoch; at once where that has passed."""
        unit.disarm()
        if at <= self._host.clock.timestamp():
            self._ring(unit)
        else:
            unit.alarm = self._host.timers.at(at, lambda: self._ring(unit))

    def _after_end(self, unit: Unit, draft: Draft) -> None:
        row = unit.row
        if row.item < 0:
            if self.compensation is not None and unit.node.on_failure_of is not None:
                self.compensation.finish(row.task, row.state)
            else:
                self.progression.finish(row.task, row.state, row.reason)
            return
        fan = self.fans[row.task]
        fan.active -= 1
        if row.state is TaskState.FAILED and fan.first_failure is None:
            fan.first_failure = unit
        self.finish_fan(fan, draft)

    def finish_fan(self, fan: Fan, draft: Draft) -> None:
        """End a for_each whose items have all ended."""
        if not fan.is_over or fan.unit.row.state.is_terminal:
            return
        if fan.is_stopped and fan.first_failure is not None:
            item = fan.first_failure
            cause = item.error or {}
            message = f"Item {item.row.item} failed: {cause.get('message', '')}"
            self.fail(fan.unit, Failed(kind=cause.get("kind", "unknown"), message=message), draft, final=True)
            return
        units = [fan.units.get(index) for index in range(len(fan.values))]
        texts = [unit.row.output.text if unit is not None and unit.row.output else "null" for unit in units]
        stored = StoredText.of(f"[{','.join(texts)}]")
        if stored.size > self._host.settings.max_output_bytes:
            message = f"The items' outputs together have {stored.size} bytes, over max_output_bytes."
            self.fail(fan.unit, Failed(kind="invalid", message=message), draft, final=True)
            return
        data: dict[str, Any] = {"items": len(texts)}
        reason = None
        if fan.first_failure is not None:
            lost = sum(unit is not None and unit.row.state is TaskState.FAILED for unit in units)
            data["reason"] = reason = f"{lost} of {len(texts)} items failed"
        draft.move(fan.unit, TaskState.COMPLETED, output=stored, data=data, reason=reason)
        self._after_end(fan.unit, draft)

    # Ends
    def end(self) -> End:
        """How the run ends, now that all of them have."""
        if self._verdict is None or self.compensation is None:
            return self._judge()
        return self._verdict.with_failures(self.compensation.failures + self._with_failed_items())

    def _judge(self) -> End:
        failed = self.progression.failures(tolerated=False)
        tolerated = self.progression.failures(tolerated=True) + self._with_failed_items()
        if failed:
            return End(RunState.FAILED, error=self.units[failed[0]].row.error, failed_tasks=failed + tolerated)
        try:
            text = self._output()
        except (AttemptError, NotJson) as problem:
            message = f"The flow's output cannot be made: {problem}"
            error = Failed(kind="invalid", message=message).as_json(task="", attempt=0)
            return End(RunState.FAILED, error=error, failed_tasks=tolerated)
        return End(RunState.COMPLETED, output=StoredText.of(text), failed_tasks=tolerated)

    def _output(self) -> str:
        limit = self._host.settings.max_output_bytes
        if self._plan.output is not None:
            value = self._host.vault.mask(self._plan.output.render(self.scope))
            return check_json(value, max_bytes=limit)
        stages = [stage for stage in self._plan.stages if stage.tasks]
        names = stages[-1].tasks if stages else ()
        rows = [(name, self.units[name].row.output) for name in names]
        if sum(stored.size for _, stored in rows if stored is not None) > limit:
            raise AttemptError("the outputs of its last stage together are too large; give the flow an output")
        return "{" + ",".join(f'"{name}":{stored.text if stored else "null"}' for name, stored in rows) + "}"

    def cancel(self, draft: Draft, end: End) -> End:
        """Cancel all that have not ended; answers the run's end with what had failed before."""
        reason = end.reason or "run cancelled"
        for fan in self.fans.values():
            for unit in fan.units.values():
                if not unit.row.state.is_terminal:
                    draft.move(unit, TaskState.CANCELLED, reason=reason)
        for name, node in self._plan.tasks.items():
            own = self.units.setdefault(name, Unit(TaskRow(name), node))
            if not own.row.state.is_terminal:
                draft.move(own, TaskState.CANCELLED, reason=reason)
        error = self._fatal_error if end.to is RunState.FAILED else None  # that of a run that had failed before
        return End(
            end.to, error=error or end.error, reason=end.reason, failed_tasks=self._failed() + self._with_failed_items()
        )

    def _failed(self) -> list[str]:
        """All that failed, what failed the run first."""
        failed = self.progression.failures(tolerated=False) + self.progression.failures(tolerated=True)
        return failed if self.compensation is None else failed + self.compensation.failures

    def _with_failed_items(self) -> list[str]:
        """Those that completed though items of their for_each had failed."""
        return [name for name, unit in self.units.items() if unit.row.has_failed_items]
