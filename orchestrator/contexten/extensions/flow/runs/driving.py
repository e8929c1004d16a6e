"""Runs: submitting, controlling, running again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar, get_args

from ..actor import Actor
from ..agents.ability import check_agents
from ..agents.registry import AgentRegistry
from ..answers.reading import CANCELLING, Answers
from ..clock import Clock
from ..definition import Plan
from ..driver import Driver
from ..engines import Engines
from ..errors import InvalidArguments, StoreBusy
from ..flows.plans import Plans
from ..flows.saving import Flows, SavedFlow
from ..live.watching import Watchers
from ..scheduling.estimates import Estimates
from ..scheduling.in_force import Scheduling
from ..settings import FlowSettings
from ..states import RunState
from ..store import NewRun, Stale, Store, StoredText, Submitted
from ..store.database import settle_future
from ..store.requests import request
from ..store.sql import SQL
from ..store.submissions import submit
from ..views import Action, ControlResult, RunView
from .reading import RunReader
from .reruns import RERUNS, check_rerun, new_rerun
from .submission import RunRequest, check_timeout, new_run

T = TypeVar("T")

ACTIONS = get_args(Action)
MAX_STALE = 5  # times that a run is made anew since what it was made from changed before it was recorded


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
        reader: RunReader,
        settings: FlowSettings,
        clock: Clock,
        watchers: Watchers,
        driver: Driver,
    ) -> None:
        """`driver` starts runs at once, where this process drives."""
        self._store = store
        self._answers = answers
        self._flows = flows
        self._plans = plans
        self._registry = registry
        self._engines = engines
        self._scheduling = scheduling
        self._estimates = estimates
        self._reader = reader
        self._settings = settings
        self._clock = clock
        self._watchers = watchers
        self._driver = driver

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
                await self._reader.wait(submitted.run_id)
            execution = self._driver.executions.get(submitted.run_id)
            while not self._watchers.are_closed and not (submitted.is_existing or watch.has_ended):
                await watch.wait()
        has_all = run.deadline is None  # that the store would answer; it alone knows whether a deadline was missed
        if has_all and execution is not None and execution.ended is not None:
            end, place = execution.ended
            return self._answers.ended_run_view(
                run, end, place, started_at=execution.claimed.started_at, completed=execution.tasks.completed
            )
        view = await self._reader.get(submitted.run_id, detail="output")
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
            conductor = self._driver.conductor
            if conductor is None:
                return await self._store.write(partial(submit, run=run))
            future: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
            conductor.intake.submit(run, plan, partial(settle_future, future))
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
