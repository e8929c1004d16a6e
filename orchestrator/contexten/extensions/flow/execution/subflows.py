"""The sub-flows of one run: their definitions read, their runs recorded, driven, and heard of when they end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..agents.ability import check_agents
from ..clock import make_id
from ..definition import Plan, check_inputs
from ..errors import AttemptError, FlowError
from ..states import RunState, TaskState
from ..store import ClaimedRun, NewRun, RunMove
from .draft import Draft
from .messages import ChildEnded, GraceIsOver, Message, SubflowReady
from .outcome import Failed
from .unit import Unit

if TYPE_CHECKING:
    from .run import RunExecution

logger = logging.getLogger(__name__)

MAX_DEPTH = 20  # of sub-flows in sub-flows


class Subflows:
    """A run's sub-flows, each a run of its own that shares the parent's slot and owner."""

    def __init__(self, run: RunExecution) -> None:
        self._run = run
        self.live: dict[str, RunExecution] = {}
        """Those that are driven now, by run id."""

    def post(self, message: Message) -> None:
        """Tell all of them something."""
        for child in list(self.live.values()):
            child.post(message)

    def family(self) -> list[tuple[str, str, int]]:
        """Their runs and those below: (run_id, flow_id, fence)."""
        return [run for child in self.live.values() for run in child.family()]

    # Beginning
    def prepare(self, unit: Unit, draft: Draft) -> None:
        """Read the definition that a task names; the run hears of it as SubflowReady."""
        unit.is_preparing = True
        begin = partial(self._run.host.spawn, self._read, unit, name=f"sub-flow {unit.row.task}")
        if draft.is_empty:  # nothing to make durable first
            begin()
        else:
            draft.effects.append(begin)

    async def _read(self, unit: Unit) -> None:
        run, flow_id = self._run, ""
        try:
            parameters = unit.node.parameters.render(run.tasks.scope_of(unit))
            flow_id = str(parameters.get("flow_id"))
            if self._depth() >= MAX_DEPTH:
                raise AttemptError(f"sub-flows are nested deeper than {MAX_DEPTH}", kind="invalid")
            plan, version = await run.host.plans.plan_of(flow_id)
            check_agents(plan, run.staff, run.host.registry)
            inputs, issues = check_inputs(plan.definition, parameters.get("inputs") or {})
            if issues:
                raise AttemptError(
                    f"the inputs do not fit flow {flow_id!r}: {issues[0].path} {issues[0].message}", kind="invalid"
                )
            message = SubflowReady(unit, flow_id, plan, version, json.dumps(inputs, ensure_ascii=False))
        except (AttemptError, FlowError) as error:
            message = SubflowReady(unit, flow_id, None, problem=error.message)
        except Exception as error:  # whatever it is, the task must not wait for ever
            logger.exception("a sub-flow could not be prepared", extra={"run_id": run.run_id})
            message = SubflowReady(unit, flow_id, None, problem=f"it could not be prepared: {type(error).__name__}")
        run.post(message)

    def _depth(self) -> int:
        depth, parent = 0, self._run.parent
        while parent is not None:
            depth, parent = depth + 1, parent.parent
        return depth

    def begin(self, message: SubflowReady, draft: Draft) -> None:
        """Record a sub-flow's run together with the task that waits for it."""
        unit, plan, run = message.unit, message.plan, self._run
        row = unit.row
        unit.is_preparing = False
        if plan is None:
            run.tasks.fail(unit, Failed(kind="invalid", message=message.problem), draft, final=True)
            return
        if run.ending is not None:
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
        draft.effects.append(partial(self._adopt, unit, ClaimedRun.of(child), plan))

    def restore(self, children: Iterable[ClaimedRun]) -> None:
        """Take up those that an earlier owner left, and hear of those that have ended meanwhile."""
        for child in children:
            unit = self._run.tasks.find(child.parent_task or "", child.parent_item)
            if unit is None:
                continue
            if child.state.is_terminal:
                self._run.post(ChildEnded(unit, child.state, child.output, child.error))
            else:
                self._run.host.spawn(self._resume, unit, child, name=f"resume {child.run_id}")

    async def _resume(self, unit: Unit, claimed: ClaimedRun) -> None:
        run = self._run
        try:
            plan, _ = await run.host.plans.plan_of(claimed.flow_id, claimed.version)
        except (FlowError, ValueError) as error:
            failure = Failed(kind="invalid", message=f"The sub-flow's definition cannot be read: {error}")
            run.post(ChildEnded(unit, RunState.FAILED, None, failure.as_json(task="", attempt=0)))
            return
        if not run.is_over:
            self._adopt(unit, claimed, plan)
            run.poke()

    def _adopt(self, unit: Unit, claimed: ClaimedRun, plan: Plan) -> None:
        run = self._run
        if run.ending is not None:
            claimed = replace(claimed, request="cancel", reason=run.ending.reason)
        elif claimed.request is None and run.is_pausing:
            claimed = replace(claimed, request="pause")
        child = unit.child = self.live[claimed.run_id] = run.host.begin(claimed, plan, run)
        if run.grace_is_over:
            child.post(GraceIsOver())

    # Ending
    def left(self, child: RunExecution, move: RunMove | None) -> None:
        """A sub-flow's run is driven no more; `move` is its last one, where it was ours to record."""
        tasks = self._run.tasks
        self.live.pop(child.run_id, None)
        for unit in list(tasks.live):
            if unit.child is child:
                unit.child = None
        unit_of_it = tasks.find(child.claimed.parent_task or "", child.claimed.parent_item)
        if unit_of_it is not None and move is not None and move.to is not None and move.to.is_terminal:
            self._run.post(ChildEnded(unit_of_it, move.to, move.output, move.error))
        else:
            self._run.poke()

    def ended(self, message: ChildEnded, draft: Draft) -> None:
        """Record what a sub-flow's end makes of the task that waited for it."""
        unit, run = message.unit, self._run
        if unit.row.state is not TaskState.WAITING:
            return
        if message.state is RunState.COMPLETED and message.output is not None:
            run.tasks.complete(unit, message.output, draft)
        elif run.ending is not None:
            draft.move(unit, TaskState.CANCELLED, reason=run.ending.reason or "run cancelled")
        else:
            cause = json.loads(message.error) if message.error else {}
            text = (
                f"The sub-flow's run {unit.row.child_run_id} failed: {cause['message']}"
                if cause
                else f"The sub-flow's run {unit.row.child_run_id} was cancelled."
            )
            run.tasks.fail(unit, Failed(kind=cause.get("kind", "agent_failure"), message=text), draft)
