"""Runs: submitting, reading, waiting, controlling, running again."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import anyio

from ..actor import Actor
from ..agents.ability import check_agents
from ..agents.registry import AgentRegistry
from ..answers.reading import CANCELLING, MAX_PAGE, Answers
from ..answers.rendering import with_holds
from ..clock import Clock
from ..definition import Plan
from ..engines import AGENT, NATIVE, Engines
from ..errors import IllegalMove, InvalidArguments, StoreBusy, TaskNotFound
from ..execution.conductor import Conductor
from ..flows.plans import Plans
from ..flows.saving import Flows, SavedFlow
from ..live.watching import Watchers
from ..scheduling.estimates import Estimates
from ..scheduling.forecast import Forecast
from ..scheduling.in_force import Scheduling
from ..settings import FlowSettings
from ..states import RunState
from ..store import NewRun, Stale, Store, StoredText, Submitted
from ..store.database import settle_future
from ..store.requests import request
from ..store.sql import SQL
from ..store.submissions import submit
from ..views import Action, ControlResult, Detail, RunView, TaskView
from .reruns import RERUNS, check_rerun, new_rerun
from .submission import RunRequest, check_timeout, new_run

T = TypeVar("T")

ACTIONS = get_args(Action)
MAX_STALE = 5  # times that a run is made anew since what it was made from changed before it was recorded
PROGRESS_S = 0.2  # between reports of progress to one caller


class Runs:
    """The runs of one database."""

    def __init__(
        self,
        *,
        store: Store,
        answers: Answers,
        flows: Flows,
        plans: Plans,
        registry: AgentRegistry,
        engines: Engines,
        scheduling: Scheduling,
        estimates: Estimates,
        forecast: Forecast,
        settings: FlowSettings,
        clock: Clock,
        watchers: Watchers,
    ) -> None:
        self._store = store
        self._answers = answers
        self._flows = flows
        self._plans = plans
        self._registry = registry
        self._engines = engines
        self._scheduling = scheduling
        self._estimates = estimates
        self._forecast = forecast
        self._settings = settings
        self._clock = clock
        self._watchers = watchers
        self.conductor: Conductor | None = None
        """Starts runs at once, where this process drives."""

    # Submitting
    async def execute(self, request: RunRequest, actor: Actor) -> RunView:
        """Record a run and answer at once."""

        async def record() -> RunView:
            run, plan = await self._prepare(request, actor)
            return await self._submitted(run, await self._submit(run, plan))

        return await _from_what_holds(record)

    async def run(self, request: RunRequest, actor: Actor) -> RunView:
        """Record a run, wait for its end, and answer it with its output."""

        async def record() -> RunView:
            return await self._run(*await self._prepare(request, actor))

        return await _from_what_holds(record)

    async def _run(self, run: NewRun, plan: Plan) -> RunView:
        with self._watchers.watch(run.run_id, end_only=True) as watch:
            submitted = await self._submit(run, plan)
            if submitted.is_existing:
                await self.wait(submitted.run_id)
            execution = self.conductor.executions.get(submitted.run_id) if self.conductor is not None else None
            while not self._watchers.are_closed and not (submitted.is_existing or watch.has_ended):
                await watch.wait()
        if execution is not None and execution.ended is not None:  # all that the store would answer is here
            end, place = execution.ended
            return self._answers.ended_run_view(
                run, end, place, started_at=execution.claimed.started_at, completed=execution.tasks.completed
            )
        view = await self.get(submitted.run_id, detail="output")
        return view.model_copy(update={"existing": True}) if submitted.is_existing else view

    async def _prepare(self, request: RunRequest, actor: Actor) -> tuple[NewRun, Plan]:
        flow_id, workflow_def, version = request.get("flow_id"), request.get("workflow_def"), request.get("version")
        if workflow_def is not None:
            _, flow = await self._flows.create(
                workflow_def,
                name=request.get("name"),
                description=None,
                flow_id=flow_id,
                validate_only=False,
                listed=False,
                actor=actor,
            )
            self._plans.keep(flow.flow_id, flow.version, flow.plan)
        elif flow_id is not None:
            flow = await self._flows.saved(flow_id, version)
        else:
            raise InvalidArguments(
                "execute_flow takes a flow_id or a workflow_def.", next="Call list_flows() to see the flows."
            )
        run = new_run(
            flow,
            request,
            scheduling=self._scheduling,
            estimate_s=await self._estimate(flow, has_deadline=request.get("deadline") is not None),
            registry=self._registry,
            engines=self._engines,
            settings=self._settings,
            clock=self._clock,
            actor=actor,
        )
        return run, flow.plan

    async def _estimate(self, flow: SavedFlow, *, has_deadline: bool) -> float | None:
        """How long the run takes, where that counts for when it starts and the store's history tells."""
        if not has_deadline and not self._scheduling.strategy.needs_estimates:
            return None
        estimate = await self._estimates.of_run(flow.flow_id, flow.version, flow.plan)
        return estimate.p50_s if estimate.is_known else None

    async def _submit(self, run: NewRun, plan: Plan) -> Submitted:
        """Record a run, and start it at once where that is possible. Raises Stale where the flow has a newer version or
        the queue another strategy; these are known then."""
        try:
            if self.conductor is None:
                return await self._store.write(partial(submit, run=run))
            future: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
            self.conductor.intake.submit(run, plan, partial(settle_future, future))
            return await future
        except Stale:
            self._flows.forget(run.flow_id)
            await self._scheduling.settle()
            raise

    async def _submitted(self, run: NewRun, submitted: Submitted) -> RunView:
        if not submitted.is_existing:
            return self._answers.new_run_view(run, submitted)
        view = self._answers.run_view(await self._answers.row(submitted.run_id))
        return view.model_copy(update={"existing": True})

    # Reading and waiting
    async def get(
        self,
        run_id: str,
        *,
        detail: Detail = "summary",
        since: str | None = None,
        task: str | None = None,
        limit: int = MAX_PAGE,
    ) -> RunView:
        """Raises RunNotFound, TaskNotFound. `since` keeps only tasks and events that changed after that cursor."""
        after, reset = await self._answers.place(since, run_id)
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        if task is not None and task not in plan.tasks:
            raise TaskNotFound(
                f"The run {run_id} has no task {task!r}; it has {', '.join(list(plan.tasks)[:20])}.",
                next=f"Call get_flow_status(run_id={run_id!r}, detail='tasks').",
            )
        more: dict[str, Any] = {"reset": True if reset else None}
        tasks: list[TaskView] = []
        if row["framework"] != NATIVE or any(node.task.type == AGENT for node in plan.tasks.values()):
            more["usage"] = await self._answers.usage(run_id)
        if row["state"] == RunState.PAUSED:
            more["root_run_id"] = await self._answers.root_run_id(row)
        if row["framework"].startswith("prefect"):
            more["monitor_url"] = await self._answers.monitor_url(run_id)
        if row["blocked"] is not None:
            more["dependencies"] = await self._answers.dependencies(run_id)
        if detail == "tasks" or not RunState(row["state"]).is_terminal:
            tasks, active = await self._answers.tasks(run_id, plan, after if detail == "tasks" else 0)
            more["active"] = active or None
            if self.conductor is not None:
                tasks = with_holds(tasks, self.conductor.holds(run_id), plan)
        if detail == "tasks":
            more["tasks"] = [view for view in tasks if task is None or view.name == task]
        elif detail == "events":
            events = await self._answers.events(run_id, after, limit + 1)
            row = await self._answers.row(run_id)  # as in `_changed`
            more["more_events"] = True if len(events) > limit else None
            more["events"] = [event for event in events[:limit] if task is None or event.task == task]
            more["cursor"] = events[:limit][-1].cursor if events else self._answers.cursor(after)
        elif detail == "output":
            more["output"] = await self._output(row, run_id, task, plan)
        elif detail == "definition":
            more["definition"] = plan.definition.as_dict()
            more["inputs"] = json.loads(row["inputs"])
        is_dated = row["state"] == RunState.SCHEDULED and row["deadline"] is not None
        start = await self._forecast.expected_start(run_id) if is_dated else None
        view = self._answers.run_view(row, start=start)
        return view.model_copy(update={key: value for key, value in more.items() if value is not None})

    async def _output(self, row: sqlite3.Row, run_id: str, task: str | None, plan: Plan) -> Any:
        if task is not None:
            return json.loads(await self._answers.output(run_id, task, plan))
        return json.loads(row["whole_output"]) if row["whole_output"] is not None else None

    async def wait(
        self,
        run_id: str,
        *,
        timeout_s: float | None = None,
        until: Literal["end", "change"] = "end",
        since: str | None = None,
        on_progress: Callable[[RunView], Awaitable[None]] | None = None,
    ) -> RunView:
        """Wait for the run's end (or for any change after `since`), at most `timeout_s`; then what changed, as
        `events`.
        The end of waiting is never the end of the run. `on_progress` is called after changes, at most 5 times a second.

        Raises RunNotFound, InvalidArguments.
        """
        after, reset = await self._answers.place(since, run_id)
        row = await self._answers.row(run_id)
        if since is None or reset:
            after = int(row["cursor"])
        waited = partial(self._is_waited_for, until=until, after=-1 if reset else after)  # a snapshot is news at once
        known = int(row["cursor"])  # what the caller knows, or has been told
        end_only = until == "end" and on_progress is None
        with self._watchers.watch(run_id, end_only=end_only) as watch, anyio.move_on_after(timeout_s):
            row = await self._answers.row(run_id)  # after the watch began: no change is missed between
            while not waited(row):
                if not self._watchers.are_closed and (on_progress is None or int(row["cursor"]) == known):
                    await watch.wait()
                if self._watchers.are_closed:
                    break
                row = await self._answers.row(run_id)
                if on_progress is not None and int(row["cursor"]) != known:
                    known = int(row["cursor"])
                    await on_progress(self._answers.run_view(row))
                    if not waited(row):
                        await anyio.sleep(PROGRESS_S)
        return await self._changed(run_id, after, reset=reset)

    @staticmethod
    def _is_waited_for(row: sqlite3.Row, until: str, after: int) -> bool:
        state = RunState(row["state"])
        if state.is_terminal or (until == "end" and state is RunState.PAUSED):  # then a person is needed
            return True
        return until == "change" and int(row["cursor"]) > after

    async def _changed(self, run_id: str, after: int, *, reset: bool) -> RunView:
        events = await self._answers.events(run_id, after, MAX_PAGE + 1)
        view = await self.get(run_id)  # after the events: a state may be ahead of the cursor, never behind it
        update: dict[str, Any] = {"events": events[:MAX_PAGE], "reset": True if reset else None}
        if len(events) > MAX_PAGE:
            update["more_events"] = True
        update["cursor"] = events[:MAX_PAGE][-1].cursor if events else self._answers.cursor(after)
        return view.model_copy(update=update)

    async def task_output(self, run_id: str, task: str) -> str:
        """A completed task's output as JSON text, whole. Raises RunNotFound, TaskNotFound, IllegalMove (no output
        yet)."""
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        return await self._answers.output(run_id, task, plan)

    async def run_output(self, run_id: str) -> str:
        """A completed run's output as JSON text, whole. Raises RunNotFound, IllegalMove (no output yet)."""
        row = await self._answers.row(run_id)
        if row["whole_output"] is None:
            raise IllegalMove(
                f"The run {run_id} is {row['state']} and has no output.",
                next=f"Call wait_for_flow(run_id={run_id!r}) or explain_flow(run_id={run_id!r}).",
            )
        return str(row["whole_output"])

    # Controlling
    async def control(
        self,
        run_id: str,
        action: Action,
        *,
        task: str | None = None,
        version: int | None = None,
        timeout_s: float | None = None,
        reason: str | None = None,
        actor: Actor,
    ) -> ControlResult:
        """Cancel, pause, resume, retry or rerun a run. `timeout_s` is the new run's limit, instead of the old one's.
        Raises RunNotFound, IllegalMove, TaskNotFound, InvalidArguments."""
        if action not in ACTIONS:
            raise InvalidArguments(f"There is no action {action!r}.", next=f"Use one of {', '.join(ACTIONS)}.")
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        if action in RERUNS:
            check_timeout(timeout_s)
            return await self._run_again(
                row, plan, action, task=task, version=version, timeout_s=timeout_s, actor=actor
            )
        at = self._clock.timestamp()
        change = partial(request, run_id=run_id, action=action, at=at, reason=reason, actor=str(actor))
        await self._store.write(change)
        view = self._answers.run_view(await self._answers.row(run_id))
        note = view.note
        if note == CANCELLING:
            note = f"cancelling; attempts in flight get up to {self._settings.cancel_grace_s:g} s to end"
        return ControlResult(
            run_id=run_id,
            flow_id=view.flow_id,
            action=action,
            state=view.state,
            note=note,
            cursor=view.cursor,
            next_poll_s=view.next_poll_s,
        )

    async def _run_again(
        self,
        row: sqlite3.Row,
        old: Plan,
        action: str,
        *,
        task: str | None,
        version: int | None,
        timeout_s: float | None,
        actor: Actor,
    ) -> ControlResult:
        check_rerun(row["run_id"], RunState(row["state"]), action, task, old)
        flow = await self._flows.saved(row["flow_id"], version or row["version"])
        staff = self._engines.staff(row["framework"])
        check_agents(flow.plan, staff, self._registry)
        outputs = [
            (name, StoredText(text, digest, size or 0))
            for name, text, digest, size in await self._store.rows(SQL["read_outputs"], (row["run_id"],))
        ]
        tasks, _ = await self._answers.tasks(row["run_id"], old, 0)

        async def record() -> tuple[NewRun, Submitted]:
            run = new_rerun(
                row,
                old,
                flow,
                again=task if action == "rerun_from" else None,
                timeout_s=timeout_s,
                tasks=tasks,
                outputs=outputs,
                scheduling=self._scheduling,
                estimate_s=await self._estimate(flow, has_deadline=False),
                staff=staff,
                at=self._clock.timestamp(),
                actor=str(actor),
            )
            return run, await self._submit(run, flow.plan)

        run, submitted = await _from_what_holds(record)
        view = self._answers.new_run_view(run, submitted)
        return ControlResult(
            run_id=run.run_id,
            flow_id=view.flow_id,
            action=action,
            state=view.state,
            rerun_of=run.rerun_of,
            taken_over=[taken.task for taken in run.taken_over],
            cursor=view.cursor,
            next_poll_s=view.next_poll_s,
        )


async def _from_what_holds(record: Callable[[], Awaitable[T]]) -> T:
    """What `record` answers, which is called anew where a version was saved, or a strategy set, before it had recorded.
    Raises StoreBusy where that happens again and again."""
    for _ in range(MAX_STALE):
        with suppress(Stale):
            return await record()
    raise StoreBusy(
        f"The flow or the strategy was changed {MAX_STALE} times while the run was being recorded; nothing was.",
        next="Send the call again.",
    )
