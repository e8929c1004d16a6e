"""The one core of a database in a process: every entrance (Python, MCP, CLI) calls it."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
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
from .definition import Plan
from .engines import engine_views
from .errors import Closing, FlowError, IllegalMove, InvalidArguments, TaskNotFound
from .execution.conductor import Conductor
from .execution.progression import UPSTREAM
from .explaining import RunExplainer, explain_plan
from .flows import Flows
from .plans import Plans
from .recovery.retry import RetryPolicy
from .reruns import taken_over
from .scheduling import change_strategy, requeue
from .settings import FlowSettings
from .states import RunState
from .store import Committed, Event, NewRun, Refused, Store, StoredText, Submitted
from .store.database import settle_future
from .store.requests import request
from .store.retention import prune
from .store.sql import SQL
from .store.submissions import submit
from .store.verify import verify
from .store.writer import translate
from .strategies import Strategy, strategy_named
from .submission import RunRequest, check_agents, new_run
from .views import (
    AgentsView,
    AgentView,
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
    StrategyState,
    TaskView,
    ToolView,
    VerifyReport,
)
from .watching import Change, Watchers, changes_of

logger = logging.getLogger(__name__)

Detail = Literal["summary", "tasks", "events", "output", "definition"]
Action = Literal["cancel", "pause", "resume", "retry", "rerun_from"]

ACTIONS = ("cancel", "pause", "resume", "retry", "rerun_from")
FOLLOW_S = 0.15  # between looks at what other processes wrote
PRUNE_S = 600.0  # between prunings
PROGRESS_S = 0.2  # between reports of progress to one caller


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
        self._store = Store(self.settings.database, durability=self.settings.durability, on_commit=self._on_commit)
        self._answers = Answers(self._store, self.clock, self._note)
        self._plans = Plans(self._store)
        self.flows = Flows(
            store=self._store,
            registry=self.registry,
            vault=self.vault,
            settings=self.settings,
            clock=self.clock,
            answers=self._answers,
            plans=self._plans,
        )
        self._explainer = RunExplainer(self._store, self._answers, self.registry)
        self._watchers = Watchers()
        self._strategy: Strategy = strategy_named("fifo", aging_interval_s=self.settings.aging_interval_s)
        self._max_concurrent = self.settings.max_concurrent_flows
        self._conductor: Conductor | None = None
        self._stack = AsyncExitStack()
        self._seen = 0
        """The place in the journal up to which everything was announced."""
        self._own: list[tuple[int, int]] = []
        """Entries after it that this process wrote, and announced."""
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
            await self._recall()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._is_open = True
            stack.push_async_callback(_shielded, self._stop)
            if self._drives:
                self._conductor = Conductor(
                    settings=self.settings,
                    clock=self.clock,
                    store=self._store,
                    plans=self._plans,
                    registry=self.registry,
                    vault=self.vault,
                    default_retry=self._default_retry,
                    owner=make_id("srv_"),
                    group=group,
                )
                self._conductor.max_concurrent_flows = self._max_concurrent
                keys = await self._store.row(SQL["setting"], ("queue_keys",))
                if keys is None or keys[0] != self._strategy.name:
                    await self._store.write(partial(requeue, strategy=self._strategy))
                await self._conductor.start()
                stack.callback(group.create_task(self._prune(), name="prune").cancel)
            stack.callback(group.create_task(self._follow(), name="follow").cancel)
            self._stack = stack.pop_all()
        return self

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
            self._conductor = None
        self._watchers.wake_all()

    async def _recall(self) -> None:
        """What the database remembers of strategy and limit goes before the settings."""
        strategy = await self._store.row(SQL["setting"], ("strategy",))
        limit = await self._store.row(SQL["setting"], ("max_concurrent_flows",))
        name = strategy[0] if strategy else self.settings.strategy
        self._strategy = strategy_named(name, aging_interval_s=self.settings.aging_interval_s)
        if limit:
            self._max_concurrent = int(limit[0])
        last = await self._store.row(SQL["last_event"])
        self._seen = int(last[0]) if last else 0

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

    # What was committed, here and elsewhere
    def _on_commit(self, committed: Committed) -> None:
        if committed.events:
            first, last = committed.events[0].seq, committed.events[-1].seq
            if first == self._seen + 1:
                self._seen = last
            else:  # another process wrote between: `_look` reads that, and passes over ours
                self._own.append((first, last))
            self._announce(committed.events)

    def _announce(self, events: list[Event]) -> None:
        conductor = self._conductor
        if conductor is not None:
            for event in events:
                conductor.heard(event)
            conductor.after_commit()
        self._watchers.announce(changes_of(events, self._answers.cursor))

    async def _follow(self) -> None:
        """Hear what other processes wrote to the database."""
        while True:
            await self.clock.sleep(FOLLOW_S)
            try:
                await self._look()
            except FlowError as error:
                logger.warning("the journal could not be read: %s", error)

    async def _look(self) -> None:
        last = await self._store.row(SQL["last_event"])
        if last is None or int(last[0]) <= self._seen:
            return
        rows = await self._store.rows(SQL["read_events"], (self._seen, 1000))
        events = [Event(*row) for row in rows if row["seq"] > self._seen]
        if not events:
            return
        self._seen = max(self._seen, events[-1].seq)
        own, self._own = self._own, [pair for pair in self._own if pair[1] > self._seen]
        events = [event for event in events if not any(first <= event.seq <= last for first, last in own)]
        for event in events:
            if event.type == "flow.updated" and event.flow_id is not None:
                self.flows.forget(event.flow_id)
        if any(event.type.startswith("scheduler.") for event in events):
            await self._recall_scheduler()
        self._announce(events)

    async def _recall_scheduler(self) -> None:
        seen = self._seen
        await self._recall()
        self._seen = seen
        if self._conductor is not None:
            self._conductor.max_concurrent_flows = self._max_concurrent
            self._conductor.kick()

    async def _prune(self) -> None:
        while True:
            before = self.clock.timestamp() - self.settings.retention_days * 86400
            try:
                change = partial(prune, ended_before=before, keep=self.settings.retention_runs)
                while await self._store.write(change):
                    await self.clock.sleep(0.01)
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
        saved, _ = await self.flows.create(
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
        saved, _ = await self.flows.update(flow_id, raw=workflow_def, patch=patch, actor=actor)
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
        run, plan = await self._prepare(request, actor)
        submitted = await self._submit(run, plan)
        return await self._submitted(run, submitted)

    async def run_flow(self, *, actor: Actor = PYTHON, **request: Unpack[RunRequest]) -> RunView:
        """Record a run, wait for its end, and answer it with its output. Cancelling the call does not cancel the run.
        Raises as `execute_flow`."""
        run, plan = await self._prepare(request, actor)
        with self._watchers.watch(run.run_id, end_only=True) as watch:
            submitted = await self._submit(run, plan)
            if submitted.is_existing:
                await self.wait(submitted.run_id)
            while self._is_open and not (submitted.is_existing or watch.has_ended):
                await watch.wait()
        return await self.get_run(submitted.run_id, detail="output")

    async def _prepare(self, request: RunRequest, actor: Actor) -> tuple[NewRun, Plan]:
        self._check_open()
        flow_id, workflow_def, version = request.get("flow_id"), request.get("workflow_def"), request.get("version")
        if workflow_def is not None:
            _, flow = await self.flows.create(
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
            flow = await self.flows.saved(flow_id, version)
        else:
            raise InvalidArguments(
                "execute_flow takes a flow_id or a workflow_def.", next="Call list_flows() to see the flows."
            )
        run = new_run(
            flow,
            request,
            strategy=self._strategy,
            registry=self.registry,
            settings=self.settings,
            clock=self.clock,
            actor=actor,
        )
        return run, flow.plan

    async def _submit(self, run: NewRun, plan: Plan) -> Submitted:
        """Record a run, and start it at once where that is possible."""
        try:
            if self._conductor is None:
                return await self._store.write(partial(_submit, run))
            future: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
            self._conductor.submit(run, plan, partial(settle_future, future))
            return await future
        except Refused:  # another process saved a new version meanwhile
            self.flows.forget(run.flow_id)
            flow = await self.flows.saved(run.flow_id, None)
            renewed = replace(run, version=flow.version, name=flow.name, total=len(flow.plan.tasks), is_latest=False)
            return await self._submit(renewed, flow.plan)

    async def _submitted(self, run: NewRun, submitted: Submitted) -> RunView:
        if not submitted.is_existing:
            return self._answers.new_run_view(run, submitted)
        view = self._answers.run_view(await self._answers.row(submitted.run_id))
        return view.model_copy(update={"existing": True})

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
        after, reset = self._answers.place(since)
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        if task is not None and task not in plan.tasks:
            raise TaskNotFound(
                f"The run {run_id} has no task {task!r}; it has {', '.join(list(plan.tasks)[:20])}.",
                next=f"Call get_flow_status(run_id={run_id!r}, detail='tasks').",
            )
        more: dict[str, Any] = {"reset": True if reset else None}
        tasks: list[TaskView] = []
        if detail == "tasks" or not RunState(row["state"]).is_terminal:
            tasks, active = await self._answers.tasks(run_id, plan, after if detail == "tasks" else 0)
            more["active"] = active or None
        if detail == "tasks":
            more["tasks"] = [view for view in tasks if task is None or view.name == task]
        elif detail == "events":
            events = await self._answers.events(run_id, after, limit + 1)
            more["more_events"] = True if len(events) > limit else None
            more["events"] = [event for event in events[:limit] if task is None or event.task == task]
            if events[:limit]:  # they may be newer than the row
                more["cursor"] = events[:limit][-1].cursor
        elif detail == "output":
            more["output"] = await self._output(row, run_id, task, plan)
        elif detail == "definition":
            more["definition"] = plan.definition.as_dict()
            more["inputs"] = json.loads(row["inputs"])
        view = self._answers.run_view(row)
        return view.model_copy(update={key: value for key, value in more.items() if value is not None})

    async def _output(self, row: sqlite3.Row, run_id: str, task: str | None, plan: Plan) -> Any:
        if task is not None:
            return json.loads(await self._answers.output(run_id, task, plan))
        return json.loads(row["whole_output"]) if row["whole_output"] is not None else None

    async def latest_run_id(self, flow_id: str) -> str | None:
        """The flow's latest run. Raises FlowNotFound."""
        row = await self._store.row(SQL["read_flow"], (None, flow_id))
        if row is None:
            raise await self._answers.no_flow(flow_id)
        return row["latest_run_id"]  # type: ignore[no-any-return]  # a TEXT column

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
        after, reset = self._answers.place(since)
        row = await self._answers.row(run_id)
        if since is None or reset:
            after = int(row["cursor"])
        known = int(row["cursor"])  # what the caller knows, or has been told
        end_only = until == "end" and on_progress is None
        with self._watchers.watch(run_id, end_only=end_only) as watch, anyio.move_on_after(timeout_s):
            row = await self._answers.row(run_id)  # after the watch began: no change is missed between
            while not self._is_waited_for(row, until, after):
                if self._is_open and (on_progress is None or int(row["cursor"]) == known):
                    await watch.wait()
                if not self._is_open:
                    break
                row = await self._answers.row(run_id)
                if on_progress is not None and int(row["cursor"]) != known:
                    known = int(row["cursor"])
                    await on_progress(self._answers.run_view(row))
                    if not self._is_waited_for(row, until, after):
                        await anyio.sleep(PROGRESS_S)
        return await self._changed(run_id, after, reset=reset)

    @staticmethod
    def _is_waited_for(row: sqlite3.Row, until: str, after: int) -> bool:
        return RunState(row["state"]).is_terminal or (until == "change" and int(row["cursor"]) > after)

    async def _changed(self, run_id: str, after: int, *, reset: bool) -> RunView:
        view = await self.get_run(run_id)
        events = await self._answers.events(run_id, after, MAX_PAGE + 1)
        update: dict[str, Any] = {"events": events[:MAX_PAGE], "reset": True if reset else None}
        if len(events) > MAX_PAGE:
            update["more_events"] = True
        if events:  # they may be newer than the row
            update["cursor"] = events[:MAX_PAGE][-1].cursor
        return view.model_copy(update=update)

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
        if action not in ACTIONS:
            raise InvalidArguments(f"There is no action {action!r}.", next=f"Use one of {', '.join(ACTIONS)}.")
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        if action in ("retry", "rerun_from"):
            return await self._run_again(row, plan, action, task, version, actor)
        at = self.clock.timestamp()
        change = partial(
            _request, run_id=run_id, action=action, at=at, reason=reason, actor=str(actor), tasks=tuple(plan.tasks)
        )
        state = await self._store.write(change)
        view = self._answers.run_view(await self._answers.row(run_id))
        note = view.note
        if state is RunState.RUNNING and action == "cancel":
            note = f"cancelling; attempts in flight get up to {self.settings.cancel_grace_s:g} s to end"
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
        self, row: sqlite3.Row, old: Plan, action: str, task: str | None, version: int | None, actor: Actor
    ) -> ControlResult:
        run_id, state = row["run_id"], RunState(row["state"])
        if not state.is_terminal:
            raise IllegalMove(
                f"The run {run_id} is {state}; only a run that has ended can be run again.",
                next=f"Call wait_for_flow(run_id={run_id!r}) or control_flow(run_id={run_id!r}, action='cancel').",
            )
        if action == "retry" and state is RunState.COMPLETED:
            raise IllegalMove(
                f"The run {run_id} is completed; there is nothing to retry.",
                next=f"Call control_flow(run_id={run_id!r}, action='rerun_from', task=...) or execute_flow.",
            )
        if action == "rerun_from" and task is None:
            raise InvalidArguments("rerun_from needs a task.", next=f"Its tasks: {', '.join(list(old.tasks)[:50])}.")
        flow = await self.flows.saved(row["flow_id"], version or row["version"])
        if task is not None and task not in flow.plan.tasks:
            raise TaskNotFound(
                f"The flow {flow.flow_id!r} (version {flow.version}) has no task {task!r}.",
                next=f"Its tasks: {', '.join(list(flow.plan.tasks)[:50])}.",
            )
        check_agents(flow.plan, self.registry)
        at = self.clock.timestamp()
        outputs = [
            (name, StoredText(text, digest, size or 0))
            for name, text, digest, size in await self._store.rows(SQL["read_outputs"], (run_id,))
        ]
        tasks, _ = await self._answers.tasks(run_id, old, 0)
        settled = [
            view.name
            for view in tasks
            if view.state == "completed" or (view.state == "skipped" and not (view.reason or "").startswith(UPSTREAM))
        ]
        again = task if action == "rerun_from" else None
        rows = taken_over(outputs, old, flow.plan, settled=settled, again=again, at=at)
        run = NewRun(
            run_id=make_id("run_", at),
            flow_id=flow.flow_id,
            version=flow.version,
            name=flow.name,
            framework=row["framework"],
            priority=row["priority"],
            queue_key=self._strategy.key(enqueued_at=at, priority=row["priority"]),
            inputs=row["inputs"],
            total=len(flow.plan.tasks),
            created_at=at,
            timeout_s=row["timeout_s"],
            rerun_of=run_id,
            taken_over=rows,
            actor=str(actor),
        )
        submitted = await self._submit(run, flow.plan)
        view = self._answers.new_run_view(run, submitted)
        return ControlResult(
            run_id=run.run_id,
            flow_id=view.flow_id,
            action=action,
            state=view.state,
            rerun_of=run_id,
            taken_over=[taken.task for taken in rows],
            cursor=view.cursor,
            next_poll_s=view.next_poll_s,
        )

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

    async def events(self, run_id: str | None = None, *, since: str | None = None, limit: int = 200) -> list[EventView]:
        """Journal entries after `since`, oldest first. Raises RunNotFound."""
        if run_id is not None:
            await self._answers.row(run_id)
        return await self._answers.events(run_id, self._answers.place(since)[0], limit)

    # The whole
    async def explain(
        self, *, flow_id: str | None = None, run_id: str | None = None, workflow_def: object | None = None
    ) -> Explanation:
        """What a flow will do, or why a run is where it is. Raises FlowNotFound, RunNotFound, InvalidDefinition,
        InvalidArguments."""
        if run_id is not None:
            row = await self._answers.row(run_id)
            plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
            return await self._explainer.explain(run_id, plan, self._max_concurrent)
        if workflow_def is not None:
            saved, flow = await self.flows.create(
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
        before = StrategyState(strategy=self._strategy.name, max_concurrent_flows=self._max_concurrent)
        chosen, limit, effect = await change_strategy(
            self._store,
            current=self._strategy,
            limit=self._max_concurrent,
            strategy=strategy,
            max_concurrent_flows=max_concurrent_flows,
            dry_run=dry_run,
            aging_interval_s=self.settings.aging_interval_s,
            at=self.clock.timestamp(),
            actor=str(actor),
        )
        self._strategy, self._max_concurrent = chosen, limit
        if self._conductor is not None:
            self._conductor.max_concurrent_flows = limit
            self._conductor.kick()
        after = StrategyState(strategy=chosen.name, max_concurrent_flows=limit)
        return StrategyChange(before=before, after=after, effect=effect)

    async def agents(self) -> AgentsView:
        """Agents, tools and engines of this process."""
        snapshot = self.registry.snapshot()
        return AgentsView(
            agents=[AgentView(**agent) for agent in snapshot["agents"]],
            tools=[ToolView(**tool) for tool in snapshot["tools"]],
            engines=engine_views(),
            disabled_tools=snapshot["disabled_tools"],
        )

    async def scheduler(self) -> SchedulerView:
        """The scheduler's state now."""
        counts = await self._answers.counts("count_runs")
        preview = await self._store.rows(SQL["queue_preview"], (20,))
        return SchedulerView(
            strategy=self._strategy.name,
            max_concurrent_flows=self._max_concurrent,
            running=counts.get("running", 0),
            queued=counts.get("scheduled", 0),
            waiting=counts.get("waiting", 0),
            paused=counts.get("paused", 0),
            next_runs=[str(row[0]) for row in preview],
        )

    async def metrics(self) -> MetricsView:
        """Figures about scheduler, flows, tasks, agents and store."""
        runs = await self._answers.counts("count_runs")
        tasks = await self._answers.counts("count_tasks")
        durations = await self._store.row(SQL["duration_stats"])
        attempts = await self._store.row(SQL["retry_stats"])
        completed, failed = runs.get("completed", 0), runs.get("failed", 0)
        return MetricsView(
            scheduler=(await self.scheduler()).data(),
            flows={
                "runs_by_state": runs,
                "success_rate": round(completed / (completed + failed), 4) if completed + failed else None,
                "mean_duration_s": round(durations[1], 4) if durations and durations[1] is not None else None,
                "max_duration_s": round(durations[2], 4) if durations and durations[2] is not None else None,
            },
            tasks={
                "tasks_by_state": tasks,
                "attempts": attempts[0] if attempts else 0,
                "retried": attempts[1] if attempts else 0,
            },
            agents={"running": self.registry.running, "agents": len(self.registry.agents)},
            store={"bytes": self._store.size(), **self._store.figures(), "sqlite": sqlite3.sqlite_version},
        )

    async def verify(self) -> VerifyReport:
        """Fold the journal and compare it with the state tables; check the file's integrity. Raises StoreError."""
        try:
            found = await asyncio.to_thread(verify, self._store.path)
        except sqlite3.Error as error:
            raise translate(error) from error
        return VerifyReport(
            ok=not found.problems,
            runs=found.runs,
            events=found.events,
            integrity=found.integrity,
            problems=found.problems,
        )


async def _shielded(farewell: Callable[[], Awaitable[None]]) -> None:
    """Each farewell is bounded in time itself."""
    with anyio.CancelScope(shield=True):
        await farewell()


def _submit(run: NewRun, tx: Any) -> Submitted:
    return submit(tx, run)


def _request(tx: Any, **arguments: Any) -> RunState:
    return request(tx, **arguments)
