"""Explanations: what a flow will do, why a run waits, why it failed and what to do."""

from __future__ import annotations

import json
from typing import Any

from .agents.registry import AgentRegistry
from .answers import Answers
from .definition import Plan
from .planview import critical_path, plan_view, side_effects
from .states import RunState
from .store import Store
from .store.sql import SQL
from .submission import KINDS_WITHOUT_AGENT
from .views import Explanation, FlowView, IssueView, TaskView


def explain_plan(plan: Plan, *, flow: FlowView | None, warnings: list[IssueView]) -> Explanation:
    """What a definition or a saved flow will do."""
    view = plan_view(plan)
    path, effects = critical_path(plan), side_effects(plan)
    touches = f" It touches the outside in {len(effects)} places." if effects else " It touches nothing outside."
    summary = (
        f"{_count(view.tasks, 'task')} in {_count(view.stages, 'stage')}, in "
        f"{_count(len(view.waves) + (view.more_waves or 0), 'wave')}; "
        f"the longest chain has {_count(len(path), 'task')}.{touches}"
    )
    call = f"execute_flow(flow_id={flow.flow_id!r})" if flow else "create_flow(name=..., workflow_def=...)"
    return Explanation(
        subject="flow" if flow else "definition",
        flow_id=flow.flow_id if flow else None,
        name=flow.name if flow else plan.definition.name or "",
        state=flow.state if flow else None,
        summary=summary,
        plan=view,
        critical_path=path,
        side_effects=effects,
        next=[call],
        warnings=warnings,
    )


class RunExplainer:
    """Explains runs from what the store has recorded."""

    def __init__(self, store: Store, answers: Answers, registry: AgentRegistry) -> None:
        self._store = store
        self._answers = answers
        self._registry = registry

    async def explain(self, run_id: str, plan: Plan, limit: int) -> Explanation:
        """Why the run is where it is. `limit` is max_concurrent_flows. Raises RunNotFound."""
        row = await self._answers.row(run_id)
        run = self._answers.run_view(row)
        tasks, active = await self._answers.tasks(run_id, plan, 0)
        state = RunState(run.state)
        waiting_for: list[str] | None = None
        failure: dict[str, Any] | None = None
        following = [f"get_flow_status(run_id={run_id!r}, detail='tasks')"]
        if state is RunState.SCHEDULED:
            waiting_for, summary = await self._queue(run_id, limit)
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
            failure = await self._failure(run_id, tasks)
            root = failure.get("root_task")
            at = f" in task {root}" if root else ""
            summary = f"Failed{at}: {run.error.kind}: {run.error.message}" if run.error else "Failed."
            following = _repairs(run_id, run.flow_id, run.error.kind if run.error else "", root)
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

    async def _queue(self, run_id: str, limit: int) -> tuple[list[str], str]:
        place = await self._store.row(SQL["queue_place"], (run_id,))
        ahead = int(place[0]) if place else 0
        holders = [run.run_id for run in (await self._answers.runs("running", None, None, 10, None)).runs]
        slots = f"a free slot (max_concurrent_flows is {limit}; held by {', '.join(holders) or 'none'})"
        return [slots], f"Queued behind {ahead} runs, waiting for {slots}."

    def _obstacles(self, tasks: list[TaskView], plan: Plan) -> list[str] | None:
        found = []
        for view in tasks:
            task = plan.tasks[view.name].task
            if view.state == "retrying":
                found.append(f"{view.name}: the next attempt at {view.next_attempt_at}")
            elif (
                view.state in ("pending", "running")
                and task.type not in KINDS_WITHOUT_AGENT
                and self._registry.select(task) is None
            ):
                found.append(f"{view.name}: no agent of this process offers {', '.join(task.required_tools)}")
        return found or None

    async def _failure(self, run_id: str, tasks: list[TaskView]) -> dict[str, Any]:
        rows = await self._store.rows(SQL["read_failed_task"], (run_id,))
        failure: dict[str, Any] = {}
        if rows:
            first = rows[0]
            failure = {"root_task": first["task"], "attempts": first["attempts"], **json.loads(first["error"])}
            failure.pop("task", None)
        skipped = [
            view.name for view in tasks if view.state == "skipped" and (view.reason or "").startswith("upstream")
        ]
        if skipped:
            failure["skipped"] = skipped
        return failure


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _repairs(run_id: str, flow_id: str, kind: str, root: str | None) -> list[str]:
    if kind in ("timeout", "network", "rate_limit", "resource", "agent_failure", "interrupted"):
        return [
            f"control_flow(run_id={run_id!r}, action='retry')",
            f"update_flow(flow_id={flow_id!r}, patch=[...]) to give the task more retry or timeout_s",
        ]
    calls = [
        f"update_flow(flow_id={flow_id!r}, patch=[...]) to mend the definition",
        f"control_flow(run_id={run_id!r}, action='retry', version=<the new one>)",
    ]
    if root:
        calls.insert(0, f"get_flow_status(run_id={run_id!r}, detail='events', task={root!r})")
    return calls
