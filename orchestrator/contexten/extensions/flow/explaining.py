"""Explanations: what a flow will do, why a run waits, why it failed and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .agents.ability import KINDS_WITHOUT_AGENT
from .agents.registry import AgentRegistry
from .answers import Answers
from .definition import Plan
from .estimates import Estimate
from .obstacles import Obstacles
from .planview import critical_path, plan_view, side_effects
from .postmortem import Postmortem
from .rendering import with_holds
from .states import RunState
from .views import Explanation, FlowView, IssueView, TaskView

SLOWEST = 10  # tasks whose durations are told


def explain_plan(
    plan: Plan,
    *,
    flow: FlowView | None,
    warnings: list[IssueView],
    estimate: Estimate,
    of_tasks: Mapping[str, Estimate],
) -> Explanation:
    """What a definition or a saved flow will do, and how long that will probably take."""
    view = plan_view(plan)
    path, effects = critical_path(plan), side_effects(plan)
    touches = f" It touches the outside in {len(effects)} places." if effects else " It touches nothing outside."
    summary = (
        f"{_count(view.tasks, 'task')} in {_count(view.stages, 'stage')}, in "
        f"{_count(len(view.waves) + (view.more_waves or 0), 'wave')}; "
        f"the longest chain has {_count(len(path), 'task')}.{touches}"
    )
    if view.on_failure:
        summary += f" After a failure up to {_count(len(view.on_failure), 'more task')} would run."
    basis = f"from {_count(estimate.samples, 'run')}" if estimate.is_known else "a guess from the declared complexity"
    summary += f" A run takes about {estimate.p50_s:g} s ({basis})."
    slowest = sorted(of_tasks, key=lambda name: -of_tasks[name].p50_s)[:SLOWEST]
    call = f"execute_flow(flow_id={flow.flow_id!r})" if flow else "create_flow(name=..., workflow_def=...)"
    return Explanation(
        subject="flow" if flow else "definition",
        flow_id=flow.flow_id if flow else None,
        name=flow.name if flow else plan.definition.name or "",
        state=flow.state if flow else None,
        summary=summary,
        plan=view,
        critical_path=path,
        estimate=estimate.view(),
        slowest=[of_tasks[name].view(name) for name in slowest],
        side_effects=effects,
        next=[call],
        warnings=warnings,
    )


class RunExplainer:
    """Explains runs from what the store has recorded."""

    def __init__(
        self,
        answers: Answers,
        registry: AgentRegistry,
        obstacles: Obstacles,
        postmortem: Postmortem,
        holds: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`holds` tells what keeps tasks of a run under way here from starting, by task."""
        self._answers = answers
        self._postmortem = postmortem
        self._holds = holds
        self._registry = registry
        self._obstacles_in_queue = obstacles

    async def explain(self, run_id: str, plan: Plan) -> Explanation:
        """Why the run is where it is. Raises RunNotFound."""
        row = await self._answers.row(run_id)
        run = self._answers.run_view(row)
        tasks, active = await self._answers.tasks(run_id, plan, 0)
        tasks = with_holds(tasks, self._holds(run_id), plan)
        state = RunState(run.state)
        waiting_for: list[str] | None = None
        failure: dict[str, Any] | None = None
        following = [f"get_flow_status(run_id={run_id!r}, detail='tasks')"]
        if state is RunState.SCHEDULED:
            waiting_for, summary = await self._obstacles_in_queue.of(row)
            following = [f"wait_for_flow(run_id={run_id!r})"]
        elif state is RunState.RUNNING:
            waiting_for = self._obstacles(tasks, plan)
            summary = f"Running: {run.progress.completed} of {run.progress.total} tasks done"
            summary += f"; under way: {', '.join(active[:10])}." if active else "."
            following = [f"wait_for_flow(run_id={run_id!r}, until='change')"]
        elif state is RunState.WAITING:
            waiting_for = [f"{task.name} until {task.next_attempt_at}" for task in tasks if task.next_attempt_at]
            waiting_for += [
                f"{task.name}: the run {task.child_run_id} of its sub-flow"
                for task in tasks
                if task.child_run_id and task.state == "waiting"
            ]
            summary = "Waiting for a time: " + "; ".join(waiting_for[:5])
            following = [f"wait_for_flow(run_id={run_id!r})"]
        elif state is RunState.PAUSED:
            waiting_for = ["somebody to resume it"]
            summary = "Paused" + (f": {run.reason}" if run.reason else "") + "."
            following = [f"control_flow(run_id={run_id!r}, action='resume')"]
        elif state is RunState.FAILED:
            failure, summary, following = await self._postmortem.of(run, tasks, plan)
        elif state is RunState.CANCELLED:
            summary = "Cancelled" + (f": {run.reason}" if run.reason else "") + "."
            following = [f"control_flow(run_id={run_id!r}, action='retry')"]
        else:
            tolerated = f" {len(run.failed_tasks)} failures were tolerated." if run.failed_tasks else ""
            summary = f"Completed in {run.duration_s} s.{tolerated}"
            following = [f"get_flow_status(run_id={run_id!r}, detail='output')"]
        return Explanation(
            subject="run",
            flow_id=run.flow_id,
            run_id=run_id,
            name=run.name,
            state=run.state,
            summary=f"{summary} {run.note}" if run.note else summary,
            waiting_for=waiting_for,
            failure=failure,
            next=following,
        )

    def _obstacles(self, tasks: list[TaskView], plan: Plan) -> list[str] | None:
        found = []
        for view in tasks:
            task = plan.tasks[view.name].task
            if view.reason is not None and view.state in ("pending", "retrying", "running"):  # held up
                found.append(f"{view.name}: {view.reason}")
            elif view.state == "retrying":
                found.append(f"{view.name}: the next attempt at {view.next_attempt_at}")
            elif (
                view.state in ("pending", "running")
                and task.type not in KINDS_WITHOUT_AGENT
                and self._registry.select(task) is None
            ):
                found.append(f"{view.name}: no agent of this process offers {', '.join(task.required_tools)}")
        return found or None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
