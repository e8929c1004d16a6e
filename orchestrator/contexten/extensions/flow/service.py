"""The one core of a database in a process: every entrance (Python, MCP, CLI) calls it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack

import anyio

from .actor import PYTHON, Actor
from .agents.registry import AgentRegistry
from .agents.secrets import SecretVault
from .agents.tool_agent import BuiltinToolAgent
from .answers import MAX_PAGE, Answers, iso
from .clock import Clock, SystemClock, make_id
from .errors import Closing, FlowError, InvalidArguments
from .execution.conductor import Conductor
from .explaining import RunExplainer, explain_plan
from .feed import Feed
from .flows import Flows
from .overview import Overview
from .plans import Plans
from .recovery.retry import RetryPolicy
from .runs import Action, Detail, Runs
from .scheduling import Scheduling
from .settings import FlowSettings
from .states import RunState
from .store import Event, Store
from .store.retention import prune
from .submission import RunRequest
from .views import (
    AgentsView,
    ControlResult,
    EventView,
    Explanation,
    FlowPage,
    FlowSaved,
    FlowView,
    MetricsView,
    RunPage,
    RunView,
    SchedulerView,
    StrategyChange,
    VerifyReport,
)
from .watching import Change, Watchers

logger = logging.getLogger(__name__)

PRUNE_S = 600.0  # between prunings
PRUNE_PAUSE_S = 0.01  # between the batches of one, for those that work


class FlowService:
    """Opens the database, drives its runs, answers questions. `async with` owns it."""

    def __init__(
        self,
        settings: FlowSettings | None = None,
        *,
        agents: Any = None,
        drive: bool = True,
        clock: Clock | None = None,
        holder: str = "python",
        default_retry: RetryPolicy | None = None,
    ) -> None:
        """`drive=False` opens the store for questions and requests only: no run is executed and no lock held.

        Raises TypeError where `agents` are none, InvalidArguments where a secret cannot be kept.
        """
        self.settings = settings or FlowSettings()
        self.clock: Clock = clock or SystemClock()
        self.vault = SecretVault(self.settings)
        self.registry = AgentRegistry(agents, BuiltinToolAgent(self.settings, self.clock, self.vault))
        self._drives = drive
        self._holder = holder
        self._default_retry = default_retry or RetryPolicy(
            max_attempts=self.settings.max_retries + 1, delay_s=self.settings.retry_delay_s
        )
        self._watchers = Watchers()
        self._store = Store(self.settings.database, durability=self.settings.durability)
        self._answers = Answers(self._store, self.clock, self._note)
        self._feed = Feed(
            store=self._store,
            clock=self.clock,
            answers=self._answers,
            watchers=self._watchers,
            on_foreign=self._heed,
        )
        self._store.on_commit = self._feed.committed
        self._plans = Plans(self._store)
        self._scheduling = Scheduling(self._store, self.settings, self.clock)
        self._flows = Flows(
            store=self._store,
            registry=self.registry,
            vault=self.vault,
            settings=self.settings,
            clock=self.clock,
            answers=self._answers,
            plans=self._plans,
        )
        self._runs = Runs(
            store=self._store,
            answers=self._answers,
            flows=self._flows,
            plans=self._plans,
            registry=self.registry,
            scheduling=self._scheduling,
            settings=self.settings,
            clock=self.clock,
            watchers=self._watchers,
        )
        self._overview = Overview(self._store, self._answers, self.registry, self._scheduling)
        self._explainer = RunExplainer(self._store, self._answers, self.registry)
        self._conductor: Conductor | None = None
        self._stack = AsyncExitStack()
        self._is_open = False

    # Opening and closing
    async def __aenter__(self) -> Self:
        """Raises StoreBusy, StoreReadOnly, StoreCorrupt, StoreTooNew or StoreError where the database cannot be
        used."""
        async with AsyncExitStack() as stack:
            await self._store.open()
            stack.push_async_callback(_shielded, self._store.close)
            if self._drives:
                self._store.hold_driving({"holder": self._holder, "since": iso(self.clock.timestamp())})
            stack.push_async_callback(_shielded, self.registry.aclose)
            await self._scheduling.recall()
            await self._feed.begin()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._watchers.are_closed = False
            self._is_open = True
            stack.push_async_callback(_shielded, self._stop)
            if self._drives:
                await self._scheduling.settle_queue()
                await self._drive(group)
                stack.callback(group.create_task(self._prune(), name="prune").cancel)
            stack.callback(group.create_task(self._feed.follow(), name="follow").cancel)
            self._stack = stack.pop_all()
        return self

    async def _drive(self, group: asyncio.TaskGroup) -> None:
        conductor = Conductor(
            settings=self.settings,
            clock=self.clock,
            store=self._store,
            plans=self._plans,
            registry=self.registry,
            vault=self.vault,
            default_retry=self._default_retry,
            max_concurrent_flows=self._scheduling.max_concurrent_flows,
            owner=make_id("srv_"),
            group=group,
        )
        self._conductor = self._runs.conductor = self._feed.conductor = conductor
        await conductor.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop within `stop_grace_s`; unfinished runs go on at the next start."""
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def _stop(self) -> None:
        self._is_open = False
        if self._conductor is not None:
            await self._conductor.stop()
            self._conductor = self._runs.conductor = self._feed.conductor = None
        self._watchers.close()

    @property
    def database(self) -> Path:
        """The database's file."""
        return self._store.path

    @property
    def is_open(self) -> bool:
        """Whether it takes work."""
        return self._is_open

    def add_agents(self, agents: Any) -> None:
        """Take more agents; they merge with the others by name. Raises TypeError or ValueError."""
        self.registry.add(agents)
        if self._conductor is not None:
            self._conductor.agents_changed()

    def set_default_retry(self, policy: RetryPolicy) -> None:
        """From now on how tasks without `retry` are tried again."""
        self._default_retry = policy
        if self._conductor is not None:
            self._conductor.default_retry = policy

    def _check_open(self) -> None:
        if not self._is_open:
            raise Closing("The service is closed or closing.", next="Send the call again when the server is back.")

    def _note(self, state: RunState) -> str | None:
        if self._conductor is None and self._store.driver() is None and state is not RunState.PAUSED:
            return "no server runs on this database; the run goes on when one starts"
        return None

    async def _heed(self, events: list[Event]) -> None:
        """Another process wrote these entries: forget what they make untrue."""
        for event in events:
            if event.type == "flow.updated" and event.flow_id is not None:
                self._flows.forget(event.flow_id)
        if any(event.type == "scheduler.changed" for event in events):
            await self._scheduling.recall()
            self._apply_limit()

    def _apply_limit(self) -> None:
        if self._conductor is not None:
            self._conductor.max_concurrent_flows = self._scheduling.max_concurrent_flows
            self._conductor.kick()

    async def _prune(self) -> None:
        while True:
            before = self.clock.timestamp() - self.settings.retention_days * 86400
            try:
                change = partial(prune, ended_before=before, keep=self.settings.retention_runs)
                while await self._store.write(change):
                    await self.clock.sleep(PRUNE_PAUSE_S)
            except FlowError as error:
                logger.warning("pruning failed and will be tried again: %s", error)
            await self.clock.sleep(PRUNE_S)

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` on the event loop after each commit that changed something; answers how to stop.
        Listeners are quick and do not raise."""
        return self._watchers.subscribe(listener)

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
        self, *, status: str | None = None, tag: str | None = None, limit: int = 20, page: str | None = None
    ) -> FlowPage:
        """Newest first. `status` is a run state or `idle`. Raises InvalidArguments."""
        return await self._answers.flows(status, tag, limit, page)

    async def list_runs(
        self,
        *,
        status: str | None = None,
        flow_id: str | None = None,
        tag: str | None = None,
        limit: int = 20,
        page: str | None = None,
    ) -> RunPage:
        """Newest first. Raises InvalidArguments."""
        return await self._answers.runs(status, flow_id, tag, limit, page)

    # Runs
    async def execute_flow(self, *, actor: Actor = PYTHON, **request: Unpack[RunRequest]) -> RunView:
        """Record a run durably and answer at once. Raises FlowNotFound, InvalidDefinition, InvalidInputs,
        InvalidArguments, IdempotencyConflict, FlowExists, NotAvailableYet."""
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
        return await self._runs.get(run_id, detail=detail, since=since, task=task, limit=limit)

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
        return await self._runs.wait(run_id, timeout_s=timeout_s, until=until, since=since, on_progress=on_progress)

    async def control(
        self,
        run_id: str,
        action: Action,
        *,
        task: str | None = None,
        version: int | None = None,
        reason: str | None = None,
        actor: Actor = PYTHON,
    ) -> ControlResult:
        """Cancel, pause, resume, retry or rerun a run. Raises RunNotFound, IllegalMove, TaskNotFound,
        InvalidArguments."""
        self._check_open()
        return await self._runs.control(run_id, action, task=task, version=version, reason=reason, actor=actor)

    async def task_output(self, run_id: str, task: str) -> str:
        """A completed task's output as JSON text, whole. Raises RunNotFound, TaskNotFound, IllegalMove (no output
        yet)."""
        return await self._runs.task_output(run_id, task)

    async def run_output(self, run_id: str) -> str:
        """A completed run's output as JSON text, whole. Raises RunNotFound, IllegalMove (no output yet)."""
        return await self._runs.run_output(run_id)

    async def events(self, run_id: str | None = None, *, since: str | None = None, limit: int = 200) -> list[EventView]:
        """Journal entries after `since`, oldest first. Raises RunNotFound."""
        if run_id is not None:
            await self._answers.row(run_id)
        after, _ = await self._answers.place(since)
        return await self._answers.events(run_id, after, limit)

    # The whole
    async def explain(
        self, *, flow_id: str | None = None, run_id: str | None = None, workflow_def: object | None = None
    ) -> Explanation:
        """What a flow will do, or why a run is where it is. Raises FlowNotFound, RunNotFound, InvalidDefinition,
        InvalidArguments."""
        if run_id is not None:
            row = await self._answers.row(run_id)
            plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
            return await self._explainer.explain(run_id, plan, self._scheduling.max_concurrent_flows)
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
            return explain_plan(flow.plan, flow=None, warnings=saved.warnings)
        if flow_id is not None:
            view = await self._answers.flow(flow_id, None)
            plan, _ = await self._plans.plan_of(flow_id, view.version)
            return explain_plan(plan, flow=view, warnings=[])
        raise InvalidArguments("explain_flow takes a flow_id, a run_id or a workflow_def.")

    async def set_strategy(
        self,
        strategy: str | None = None,
        *,
        max_concurrent_flows: int | None = None,
        dry_run: bool = False,
        actor: Actor = PYTHON,
    ) -> StrategyChange:
        """Change the order of the queue or the limit; both are remembered. Raises InvalidArguments (unknown
        strategy, with did-you-mean), NotAvailableYet."""
        self._check_open()
        change = await self._scheduling.change(
            strategy, max_concurrent_flows=max_concurrent_flows, dry_run=dry_run, actor=str(actor)
        )
        self._apply_limit()
        return change

    async def agents(self) -> AgentsView:
        """Agents, tools and engines of this process."""
        return await self._overview.agents()

    async def scheduler(self) -> SchedulerView:
        """The scheduler's state now."""
        return await self._overview.scheduler()

    async def metrics(self) -> MetricsView:
        """Figures about scheduler, flows, tasks, agents and store."""
        return await self._overview.metrics()

    async def verify(self) -> VerifyReport:
        """Fold the journal and compare it with the state tables; check the file's integrity. Raises StoreError."""
        return await self._overview.verify()


async def _shielded(farewell: Callable[[], Awaitable[None]]) -> None:
    """Each farewell is bounded in time itself."""
    with anyio.CancelScope(shield=True):
        await farewell()
