"""Explanations: what a flow will do, why a run waits, why it failed and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..agents.ability import KINDS_WITHOUT_AGENT
from ..answers.reading import Answers
from ..answers.rendering import with_holds
from ..clock import iso
from ..definition import Plan
from ..engines import Engines
from ..flows.planview import critical_path, plan_view, side_effects
from ..scheduling.estimates import GUESSED, Estimate
from ..scheduling.forecast import Forecast
from ..states import RunState
from ..views import Explanation, FlowView, IssueView, RunView, TaskView
from .obstacles import Obstacles
from .postmortem import Postmortem

SLOWEST = 10  # tasks whose durations are told
NAMED = 10  # tolerated failures that are told by name


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
    basis = f"from {_count(estimate.samples, 'run')}" if estimate.is_known else GUESSED
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
        engines: Engines,
        obstacles: Obstacles,
        forecast: Forecast,
        postmortem: Postmortem,
        holds: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`holds` tells what keeps tasks of a run under way here from starting, by task."""
        self._answers = answers
        self._postmortem = postmortem
        self._holds = holds
        self._engines = engines
        self._obstacles_in_queue = obstacles
        self._forecast = forecast

    async def explain(self, run_id: str, plan: Plan) -> Explanation:
        """Why the run is where it is. Raises RunNotFound."""
        row = await self._answers.row(run_id)
        state = RunState(row["state"])
        start = await self._forecast.expected_start(run_id) if state is RunState.SCHEDULED else None
        run = self._answers.run_view(row, start=start)
        tasks, active = await self._answers.tasks(run_id, plan, 0)
        tasks = with_holds(tasks, self._holds(run_id), plan)
        waiting_for: list[str] | None = None
        failure: dict[str, Any] | None = None
        following = [f"get_flow_status(run_id={run_id!r}, detail='tasks')"]
        if state is RunState.SCHEDULED:
            waiting_for, summary = await self._obstacles_in_queue.of(row)
            summary += f" {start.in_words()}" if start is not None else ""
            following = [f"wait_for_flow(run_id={run_id!r})"]
        elif state is RunState.RUNNING:
            waiting_for = self._obstacles(tasks, plan, row["framework"])
            summary = f"Running: {run.progress.completed} of {run.progress.total} tasks done"
            summary += f"; under way: {', '.join(active[:10])}." if active else "."
            following = [f"wait_for_flow(run_id={run_id!r}, until='change')"]
        elif state is RunState.WAITING:
            waiting_for = [told for task in tasks if (told := _awaited(task)) is not None]
            waiting_for = waiting_for or [f"the next of its times, {iso(row['wake_at'])}"]  # of items
            summary = f"Waiting: {'; '.join(waiting_for[:5])}."
            following = [f"wait_for_flow(run_id={run_id!r})"]
        elif state is RunState.PAUSED:
            waiting_for = ["somebody to resume it"]
            summary = "Paused" + (f": {run.reason}" if run.reason else "") + "."
            paused = await self._answers.root_run_id(row) or run_id
            following = [f"control_flow(run_id={paused!r}, action='resume')"]
        elif state is RunState.FAILED:
            failure, summary, following = await self._postmortem.of(run, tasks, plan)
        elif state is RunState.CANCELLED:
            summary = "Cancelled" + (f": {run.reason}" if run.reason else "") + "."
            following = [f"control_flow(run_id={run_id!r}, action='retry')"]
        else:
            summary = f"Completed in {run.duration_s} s.{_tolerated(run, tasks)}"
            following = [f"get_flow_status(run_id={run_id!r}, detail='output')"]
        return Explanation(
            subject="run",
            flow_id=run.flow_id,
            run_id=run_id,
            name=run.name,
            state=run.state,
            summary=" ".join(filter(None, (summary, _deadline(run), run.note))),
            waiting_for=waiting_for,
            failure=failure,
            next=following,
            warnings=_warnings(run),
        )

    def _obstacles(self, tasks: list[TaskView], plan: Plan, framework: str) -> list[str] | None:
        found, staff = [], self._engines.staff(framework)
        for view in tasks:
            task = plan.tasks[view.name].task
            if view.reason is not None and view.state in ("pending", "retrying", "running"):  # held up
                found.append(f"{view.name}: {view.reason}")
            elif view.state == "retrying":
                found.append(_retrying(view))
            elif (
                view.state in ("pending", "running")
                and task.type not in KINDS_WITHOUT_AGENT
                and staff.select(task) is None
            ):
                why = staff.problem(task) or f"no agent of this process offers {', '.join(task.required_tools)}"
                found.append(f"{view.name}: {why}")
        return found or None


def _awaited(task: TaskView) -> str | None:
    """What a task of a waiting run waits for; None where it is nothing."""
    if task.state == "retrying":
        return _retrying(task)
    if task.child_run_id and task.state == "waiting":
        return f"{task.name}: the run {task.child_run_id} of its sub-flow"
    return f"{task.name} until {task.next_attempt_at}" if task.next_attempt_at else None


def _tolerated(run: RunView, tasks: list[TaskView]) -> str:
    """The failures that a completed run tolerated, of whole tasks and of items of a for_each."""
    if not run.failed_tasks:
        return ""
    why = {task.name: f" ({task.reason})" for task in tasks if task.state == "completed" and task.reason}
    shown = [f"{name}{why.get(name, '')}" for name in run.failed_tasks[:NAMED]]
    more = len(run.failed_tasks) - len(shown)
    return f" Tolerated failures: {', '.join(shown)}{f' and {more} more' if more else ''}."


def _retrying(task: TaskView) -> str:
    why = f" ({task.error.kind}: {task.error.message.rstrip('.')})" if task.error is not None else ""
    return f"{task.name}: attempt {task.attempts} failed{why}; the next attempt at {task.next_attempt_at}"


def _deadline(run: RunView) -> str | None:
    """The deadline of a run that has not ended, and whether it will be met."""
    deadline = run.deadline
    if deadline is None or RunState(run.state).is_terminal:
        return None
    if deadline.missed:
        return f"Its deadline, {deadline.at}, has passed."
    if deadline.slack_s is None:
        return f"Its deadline is {deadline.at}."
    if deadline.at_risk:
        return f"Its deadline, {deadline.at}, will probably be missed by {-deadline.slack_s:g} s."
    return f"Its deadline is {deadline.at}, with {deadline.slack_s:g} s to spare."


def _warnings(run: RunView) -> list[IssueView]:
    told = _deadline(run)
    if told is None or run.deadline is None or not run.deadline.at_risk:
        return []
    return [IssueView(path="/deadline", code="deadline_at_risk", message=told)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
