"""What a database is asked: every entrance (Python, MCP, CLI) calls this."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from .actor import PYTHON, Actor
from .answers.paging import DEFAULT_PAGE, MAX_PAGE
from .core import Core
from .errors import Closing, InvalidArguments
from .explaining.explainer import explain_plan
from .live.watching import Change, Following
from .runs.submission import RunRequest
from .scheduling.estimates import guess, guess_tasks
from .views import (
    Action,
    AgentsView,
    BackupReport,
    ControlResult,
    Detail,
    EventList,
    Explanation,
    FlowPage,
    FlowSaved,
    FlowView,
    MetricsView,
    QueueView,
    RunPage,
    RunView,
    SchedulerView,
    StrategyChange,
    StrategyForecast,
    VerifyReport,
)

if TYPE_CHECKING:
    from .prefect.deployments import Published

logger = logging.getLogger(__name__)


def _context() -> Context:
    """The caller's, in which anyio knows the event loop outside of tasks too: it asks sniffio, where that is there."""
    context = copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return context


class FlowService(Core):
    """The core with its questions and requests. `async with` owns it."""

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` on the event loop after each commit that changed something, in the context of who subscribed;
        answers how to stop. Listeners are quick and do not raise."""
        context = _context()
        return self._watchers.subscribe(lambda change: context.run(listener, change))

    async def follow(self, listener: Callable[[Change], None], *, since: str | None = None) -> Following:
        """`subscribe`, and what changed between a place in the journal and now: for who lost the connection and comes
        back. Raises StoreError."""
        self._check_open()
        stop = self.subscribe(listener)
        try:
            missed = await self._feed.changes(since) if since is not None else []
        except BaseException:
            stop()
            raise
        return Following(missed=missed, place=lambda: self._answers.cursor(self._feed.seen), stop=stop)

    # Flows
    async def create_flow(
        self,
        *,
        workflow_def: object,
        name: str | None = None,
        description: str | None = None,
        flow_id: str | None = None,
        validate_only: bool = False,
        actor: Actor = PYTHON,
    ) -> FlowSaved:
        """Check a definition and save it. Raises InvalidDefinition, InvalidArguments, FlowExists."""
        self._check_open()
        saved, _ = await self._flows.create(
            workflow_def,
            name=name,
            description=description,
            flow_id=flow_id,
            validate_only=validate_only,
            listed=True,
            actor=actor,
        )
        return saved

    async def update_flow(
        self,
        flow_id: str,
        *,
        workflow_def: object | None = None,
        patch: list[dict[str, Any]] | None = None,
        actor: Actor = PYTHON,
    ) -> FlowSaved:
        """Save a flow's next version. Raises FlowNotFound, InvalidArguments, InvalidDefinition."""
        self._check_open()
        saved, _ = await self._flows.update(flow_id, raw=workflow_def, patch=patch, actor=actor)
        return saved

    async def get_flow(self, flow_id: str, *, version: int | None = None) -> FlowView:
        """With its definition. Raises FlowNotFound."""
        return await self._answers.flow(flow_id, version)

    async def list_flows(
        self,
        *,
        status: str | None = None,
        tag: str | None = None,
        search: str | None = None,
        limit: int = DEFAULT_PAGE,
        page: str | None = None,
    ) -> FlowPage:
        """Newest first. `status` is a run state or `idle`; `search` a part of a flow's name, id, tags or latest run's
        id, whatever the case of its ASCII letters. Raises InvalidArguments."""
        return await self._answers.flows(status, tag, search, limit, page)

    async def list_runs(
        self,
        *,
        status: str | None = None,
        flow_id: str | None = None,
        tag: str | None = None,
        search: str | None = None,
        limit: int = DEFAULT_PAGE,
        page: str | None = None,
    ) -> RunPage:
        """Newest first. `search` is a part of a run's name or id, or of its flow's id or tags, whatever the case of its
        ASCII letters. Raises InvalidArguments, FlowNotFound."""
        return await self._answers.runs(status, flow_id, tag, search, limit, page)

    async def publish_flow(self, flow_id: str, *, pool: str, version: int | None = None) -> Published:
        """Make a version of a flow (the latest by default) a Prefect deployment on that work pool; its runs are
        recorded in this database. Raises FlowNotFound, EngineUnavailable, PrefectError."""
        from .prefect.access import required_api
        from .prefect.deployments import publish_flow

        api = required_api()
        flow = await self.get_flow(flow_id, version=version)
        return await publish_flow(api, self.clock, flow, pool=pool, database=self.database)

    # Runs
    async def execute_flow(self, *, actor: Actor = PYTHON, **request: Unpack[RunRequest]) -> RunView:
        """Record a run durably and answer at once. Raises FlowNotFound, InvalidDefinition, InvalidInputs,
        InvalidArguments, IdempotencyConflict, FlowExists, EngineUnavailable."""
        self._check_open()
        return await self._runs.execute(request, actor)

    async def run_flow(self, *, actor: Actor = PYTHON, **request: Unpack[RunRequest]) -> RunView:
        """Record a run, wait for its end, and answer it with its output. Cancelling the call does not cancel the run.
        Raises as `execute_flow`."""
        self._check_open()
        return await self._runs.run(request, actor)

    async def get_run(
        self,
        run_id: str,
        *,
        detail: Detail = "summary",
        since: str | None = None,
        task: str | None = None,
        limit: int = MAX_PAGE,
    ) -> RunView:
        """Raises RunNotFound, TaskNotFound. `since` keeps only tasks and events that changed after that cursor."""
        return await self._reader.get(run_id, detail=detail, since=since, task=task, limit=limit)

    async def latest_run_id(self, flow_id: str) -> str | None:
        """The flow's latest run. Raises FlowNotFound."""
        return await self._answers.latest_run_id(flow_id)

    async def wait(
        self,
        run_id: str,
        *,
        timeout_s: float | None = None,
        until: Literal["end", "change"] = "end",
        since: str | None = None,
        on_progress: Callable[[RunView], Awaitable[None]] | None = None,
    ) -> RunView:
        """Wait until the run has ended or is paused (or for any change after `since`), at most `timeout_s`; then what
        changed, as `events`. The end of waiting is never the end of the run. `on_progress` is called after changes,
        at most 5 times a second. Raises RunNotFound."""
        return await self._reader.wait(run_id, timeout_s=timeout_s, until=until, since=since, on_progress=on_progress)

    async def control(
        self,
        run_id: str,
        action: Action,
        *,
        task: str | None = None,
        version: int | None = None,
        timeout_s: float | None = None,
        reason: str | None = None,
        actor: Actor = PYTHON,
    ) -> ControlResult:
        """Cancel, pause, resume, retry or rerun a run; of the last two `timeout_s` is the new run's time limit, the old
        one's by default. Raises RunNotFound, IllegalMove, TaskNotFound, InvalidArguments."""
        self._check_open()
        return await self._runs.control(
            run_id, action, task=task, version=version, timeout_s=timeout_s, reason=reason, actor=actor
        )

    async def task_output(self, run_id: str, task: str) -> str:
        """A completed task's output as JSON text, whole. Raises RunNotFound, TaskNotFound, IllegalMove (no output
        yet)."""
        return await self._reader.task_output(run_id, task)

    async def run_output(self, run_id: str) -> str:
        """A completed run's output as JSON text, whole. Raises RunNotFound, IllegalMove (no output yet)."""
        return await self._reader.run_output(run_id)

    async def events(self, run_id: str | None = None, *, since: str | None = None, limit: int = 200) -> EventList:
        """Journal entries after `since`, oldest first. Raises RunNotFound."""
        if run_id is not None:
            await self._answers.row(run_id)
        after, reset = await self._answers.place(since, run_id)
        events = await self._answers.events(run_id, after, limit)
        events.reset = reset
        return events

    # The whole
    async def explain(
        self, *, flow_id: str | None = None, run_id: str | None = None, workflow_def: object | None = None
    ) -> Explanation:
        """What a flow will do, or why a run is where it is. Raises FlowNotFound, RunNotFound, InvalidDefinition,
        InvalidArguments."""
        if run_id is not None:
            row = await self._answers.row(run_id)
            plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
            return await self._explainer.explain(run_id, plan)
        if workflow_def is not None:
            saved, flow = await self._flows.create(
                workflow_def,
                name=None,
                description=None,
                flow_id=flow_id,
                validate_only=True,
                listed=False,
                actor=PYTHON,
            )
            return explain_plan(
                flow.plan,
                flow=None,
                warnings=saved.warnings,
                estimate=guess(flow.plan),
                of_tasks=guess_tasks(flow.plan),
            )
        if flow_id is not None:
            view = await self._answers.flow(flow_id, None)
            plan, _ = await self._plans.plan_of(flow_id, view.version)
            return explain_plan(
                plan,
                flow=view,
                warnings=[],
                estimate=await self._estimates.of_run(flow_id, view.version, plan, is_fresh=True),
                of_tasks=await self._estimates.of_tasks(flow_id, plan),
            )
        raise InvalidArguments("explain_flow takes a flow_id, a run_id or a workflow_def.")

    async def set_strategy(
        self,
        strategy: str | None = None,
        *,
        max_concurrent_flows: int | None = None,
        dry_run: bool = False,
        actor: Actor = PYTHON,
    ) -> StrategyChange:
        """Change the order of the queue or the limit; both are remembered. With `dry_run` nothing changes: recent
        history and the queue are replayed through every strategy. Raises InvalidArguments (unknown strategy, with
        did-you-mean)."""
        self._check_open()
        if dry_run:
            return await self._forecast.rehearse(strategy, max_concurrent_flows)
        change = await self._scheduling.change(strategy, max_concurrent_flows=max_concurrent_flows, actor=str(actor))
        self._driver.kick()
        return change

    async def compare_strategies(self, slots: int | None = None) -> StrategyForecast:
        """How each strategy would fare with recent history and the queue, in the database's slots or in so many.
        Raises InvalidArguments, StoreError."""
        _, limit = self._scheduling.proposed(None, slots)
        return await self._forecast.compare(limit)

    async def agents(self) -> AgentsView:
        """Agents, tools and engines of this process."""
        return await self._overview.agents()

    async def queue(self, *, limit: int = 50) -> QueueView:
        """The runs that wait to start, each with what it waits for: at most `limit` of the queue, in its order, and as
        many of those kept out of it. Raises StoreError."""
        return await self._obstacles.queue(limit)

    async def scheduler(self) -> SchedulerView:
        """The scheduler's state now."""
        return await self._overview.scheduler()

    async def runs_by_state(self) -> dict[str, int]:
        """How many runs there are, without those of sub-flows."""
        return await self._overview.runs_by_state()

    async def metrics(self) -> MetricsView:
        """Figures about scheduler, flows, tasks, agents and store. Reads all tasks."""
        return await self._overview.metrics()

    async def check_ready(self) -> None:
        """Raises Closing where no more work is taken, StoreError where nothing can be recorded now. Commits."""
        self._check_open()
        conductor = self._driver.conductor
        if conductor is not None:
            if conductor.is_stopping:
                raise Closing("The service is closing.", next="Send work to another server.")
            await conductor.leases.prove()

    async def verify(self) -> VerifyReport:
        """Fold the journal and compare it with the state tables; check the file's integrity. Raises StoreError."""
        return await self._overview.verify()

    async def backup(self, path: Path, *, overwrite: bool = False) -> BackupReport:
        """Copy the database to a file while it is in use, and check the copy; the file has its name only once all is
        well. Cancelling gives it up. Raises InvalidArguments where the name is taken, StoreError."""
        return await self._overview.backup(path, overwrite=overwrite)
