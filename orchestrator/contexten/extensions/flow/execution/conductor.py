"""Drives the runs of this process: claims them from the queue while slots are free, wakes those whose time has come."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..clock import Clock
from ..definition import Plan
from ..errors import FlowError
from ..plans import Plans
from ..recovery.retry import RetryPolicy
from ..settings import FlowSettings
from ..store import ClaimedRun, Event, NewRun, Store, Submitted, Transaction
from ..store.claims import claim, release, take_back, take_over, wake_due
from ..store.sql import SQL
from ..store.submissions import submit, submit_and_start
from .messages import Asked
from .run import Opening, RunExecution
from .timers import Alarm, Timers

logger = logging.getLogger(__name__)

MAX_TAKE_BACKS = 5  # of one run: a defect that comes back each time must not turn for ever
CLAIM_BATCH = 64  # runs claimed in one change: more would make the changes of running ones wait
UNREADABLE_S = 30.0  # between tries to read a definition that cannot be read
CLAIM_RETRY_S = 1.0  # between tries to claim while the database cannot be written
CUT_OFF_S = 1.0  # for attempts to end once they are told to
FINISH_POLL_S = 0.01  # while attempts end at an orderly stop

_REQUESTS = {"run.cancel_requested": "cancel", "run.pause_requested": "pause", "run.pause_withdrawn": "resume"}


class Conductor:
    """The host of all executions. Everything happens on the event loop; its task group owns every attempt."""

    def __init__(
        self,
        *,
        settings: FlowSettings,
        clock: Clock,
        store: Store,
        plans: Plans,
        registry: AgentRegistry,
        vault: SecretVault,
        default_retry: RetryPolicy,
        max_concurrent_flows: int,
        owner: str,
        group: asyncio.TaskGroup,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.store = store
        self.plans = plans
        self.registry = registry
        self.vault = vault
        self.default_retry = default_retry
        self.owner = owner
        self.max_concurrent_flows = max_concurrent_flows
        self.is_stopping = False
        self.timers = Timers(clock)
        self.executions: dict[str, RunExecution] = {}
        """Runs under way here, sub-flows included. Written by `begin` and `left` only."""
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._roots = 0
        self._starved: dict[RunExecution, None] = {}
        self._given_up: dict[str, int] = {}
        """How often runs were begun anew that could not be recorded."""
        self._is_claiming = False
        self._may_have_queued = True
        self._wake: Alarm | None = None
        self._wake_at = float("inf")

    # Beginning and ending
    async def start(self) -> None:
        """Take over what others left running, then claim."""
        self._ticking = self._group.create_task(self.timers.run(), name="timers")
        now = self._now()
        taken = await self.store.write(lambda tx: take_over(tx, self.owner, now))
        for claimed in taken:
            await self._begin_root(claimed)
        self.kick()
        await self._plan_wake()

    async def stop(self) -> None:
        """Stop taking work, let attempts end within the grace, cut off the rest, give the runs up."""
        self.is_stopping = True
        deadline = self.clock.monotonic() + self.settings.stop_grace_s
        while self._is_busy() and self.clock.monotonic() < deadline:
            await self.clock.sleep(FINISH_POLL_S)
        deadline = self.clock.monotonic() + CUT_OFF_S
        while self._is_busy() and self.clock.monotonic() < deadline:
            for execution in list(self.executions.values()):
                execution.cut_off()  # again and again: some swallow a cancellation
            await self.clock.sleep(FINISH_POLL_S)
        runs = [(e.run_id, e.flow_id, e.claimed.fence) for e in self.executions.values()]
        if runs:
            now = self._now()
            try:
                await self.store.write(lambda tx: release(tx, runs, now))
            except FlowError as error:
                logger.warning("the runs could not be given up; the next server will take them over: %s", error)
        for execution in list(self.executions.values()):
            if execution.parent is None:
                execution.lose()
        self._ticking.cancel()

    def _is_busy(self) -> bool:
        return self._is_claiming or any(execution.has_attempts for execution in self.executions.values())

    # Submitting
    def submit(self, run: NewRun, plan: Plan, settle: Callable[[Submitted | None, BaseException | None], None]) -> None:
        """Record a run; where a slot is free and none is queued, start it in the same change."""
        if self._roots >= self.max_concurrent_flows or self._may_have_queued or self._is_claiming or self.is_stopping:
            self.store.submit(partial(_submit, run), settle)
            return
        self._roots += 1
        execution = self.begin(_unclaimed(run), plan, None)
        change = partial(_submit_and_start, run=run, owner=self.owner, max_concurrent=self.max_concurrent_flows)
        execution.start(Opening(change, settle))

    # Claiming
    def kick(self) -> None:
        """Something may be queued: claim while slots are free."""
        self._may_have_queued = True
        self._claim()

    def _claim(self) -> None:
        free = self.max_concurrent_flows - self._roots
        if self._is_claiming or self.is_stopping or free <= 0 or not self._may_have_queued:
            return
        self._is_claiming = True
        self._may_have_queued = False
        limit = min(free, CLAIM_BATCH)
        change = partial(
            _claim, owner=self.owner, at=self._now(), limit=limit, max_concurrent=self.max_concurrent_flows
        )
        self.store.submit(change, partial(self._claimed, limit))

    def _claimed(self, limit: int, claimed: list[ClaimedRun] | None, error: BaseException | None) -> None:
        self._is_claiming = False
        if self.is_stopping:  # in the last moment: they are for the next server
            now, runs = self._now(), [(run.run_id, run.flow_id, run.fence) for run in claimed or ()]
            if runs:
                self.store.submit(lambda tx: release(tx, runs, now), lambda _result, _error: None)
            return
        if error is not None or claimed is None:
            logger.warning("claiming failed and will be tried again: %s", error)
            self.timers.after(CLAIM_RETRY_S, self.kick)
            return
        if len(claimed) == limit:
            self._may_have_queued = True
        self._roots += len(claimed)
        for run in claimed:
            plan = self.plans.get(run.flow_id, run.version)
            if plan is not None:
                self.begin(run, plan, None).start()
            else:
                self.spawn(self._begin_claimed, run, name=f"begin {run.run_id}")
        self._claim()

    async def _begin_root(self, claimed: ClaimedRun) -> None:
        self._roots += 1
        await self._begin_claimed(claimed)

    async def _begin_claimed(self, claimed: ClaimedRun) -> None:
        try:
            plan, _ = await self.plans.plan_of(claimed.flow_id, claimed.version)
        except (FlowError, ValueError):
            logger.exception("run %s cannot be driven now: its definition cannot be read", claimed.run_id)
            self.timers.after(UNREADABLE_S, lambda: self.spawn(self._begin_claimed, claimed, name="begin again"))
            return
        self.begin(claimed, plan, None).start()

    def begin(self, claimed: ClaimedRun, plan: Plan, parent: RunExecution | None) -> RunExecution:
        """Drive a run from here on; a sub-flow's takes its first turn at once, a root's when it is started."""
        execution = RunExecution(self, claimed, plan, parent)
        self.executions[claimed.run_id] = execution
        if parent is not None:
            execution.start()
        return execution

    def left(self, execution: RunExecution) -> None:
        """The execution drives its run no more."""
        self._starved.pop(execution, None)
        if execution.ended is not None:
            self._given_up.pop(execution.run_id, None)
        if self.executions.pop(execution.run_id, None) is not None and execution.parent is None:
            self._roots -= 1
            self._claim()

    def take_back(self, runs: list[tuple[str, str, int]]) -> None:
        """Drive a run (the first) and its sub-flows anew from what the store says."""
        run_id = runs[0][0]
        self._given_up[run_id] = self._given_up.get(run_id, 0) + 1
        if self.is_stopping or self._given_up[run_id] > MAX_TAKE_BACKS:
            return
        now = self._now()

        def taken(claimed: ClaimedRun | None, error: BaseException | None) -> None:
            if error is not None:
                self.timers.after(CLAIM_RETRY_S, lambda: self.store.submit(change, taken))
            elif claimed is not None:
                self.spawn(self._begin_root, claimed, name=f"take back {run_id}")
            else:
                self._given_up.pop(run_id, None)

        change = partial(_take_back, runs=runs, owner=self.owner, at=now)
        self.timers.after(CLAIM_RETRY_S, lambda: self.store.submit(change, taken))

    # Waking
    async def _plan_wake(self) -> None:
        try:
            row = await self.store.row(SQL["next_wake"])
        except FlowError as error:
            logger.warning("the next wake-up could not be read and will be looked for again: %s", error)
            self.timers.after(CLAIM_RETRY_S, lambda: self.spawn(self._plan_wake, name="plan wake"))
            return
        if row is not None and row[0] is not None:
            self.wake_at(row[0])

    def wake_at(self, at: float) -> None:
        """A run waits until then."""
        if at < self._wake_at:
            if self._wake is not None:
                self._wake.cancel()
            self._wake_at = at
            self._wake = self.timers.after(at - self._now(), self._wake_due)

    def _wake_due(self) -> None:
        self._wake_at = float("inf")
        now = self._now()
        self.store.submit(lambda tx: wake_due(tx, now), self._woken)

    def _woken(self, _count: Any, error: BaseException | None) -> None:
        if error is not None:
            self.timers.after(CLAIM_RETRY_S, self._wake_due)
            return
        self.spawn(self._plan_wake, name="plan wake")

    # What was committed
    def heard(self, event: Event) -> None:
        """The journal has a new entry, of this process or another."""
        if event.task is not None:
            return
        if event.type == "run.scheduled":
            execution = self.executions.get(event.run_id or "")
            self._may_have_queued |= execution is None
        elif event.type == "run.waiting" and event.data is not None:
            self.wake_at(json.loads(event.data)["wake_at"])
        elif event.type in _REQUESTS and event.run_id is not None:
            execution = self.executions.get(event.run_id)
            if execution is not None:
                execution.post(Asked(_REQUESTS[event.type], None))

    def after_commit(self) -> None:
        """All entries of a commit were heard."""
        if self._may_have_queued:
            self._claim()

    # What executions ask for
    def spawn(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, name: str) -> None:
        """Run a coroutine function in the conductor's task group."""
        self._group.create_task(_guarded(function(*arguments), name), name=name)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop; at once where this is its thread. Safe from any thread."""
        if threading.get_ident() == self._thread:
            callback()
        else:
            self._loop.call_soon_threadsafe(callback)

    def agents_changed(self) -> None:
        """Agents may have free places: tell who waits for one."""
        if self._starved:
            starved, self._starved = self._starved, {}
            for execution in starved:
                execution.poke()

    def wait_for_agent(self, execution: RunExecution) -> None:
        """Poke the execution when an agent has a free place."""
        self._starved[execution] = None

    def _now(self) -> float:
        return self.clock.timestamp()


async def _guarded(work: Coroutine[Any, Any, Any], name: str) -> None:
    """A defect in one run's work must not end the others."""
    try:
        await work
    except Exception:
        logger.exception("%s failed", name)


def _submit(run: NewRun, tx: Transaction) -> Submitted:
    return submit(tx, run)


def _submit_and_start(tx: Transaction, *, run: NewRun, owner: str, max_concurrent: int) -> Submitted:
    return submit_and_start(tx, run, owner, max_concurrent)


def _take_back(tx: Transaction, *, runs: list[tuple[str, str, int]], owner: str, at: float) -> ClaimedRun | None:
    return take_back(tx, runs, owner, at)


def _unclaimed(run: NewRun) -> ClaimedRun:
    """The run as it will be once it is recorded and claimed."""
    return ClaimedRun(
        run_id=run.run_id,
        flow_id=run.flow_id,
        version=run.version,
        name=run.name,
        framework=run.framework,
        priority=run.priority,
        fence=1,
        inputs=run.inputs,
        timeout_s=run.timeout_s,
        request=None,
        reason=None,
        completed=len(run.taken_over),
        created_at=run.created_at,
        started_at=run.created_at,
        paused_s=0.0,
        rerun_of=run.rerun_of,
        parent_run_id=run.parent_run_id,
        parent_task=run.parent_task,
        parent_item=run.parent_item,
        tasks=list(run.taken_over),
    )


def _claim(tx: Transaction, *, owner: str, at: float, limit: int, max_concurrent: int) -> list[ClaimedRun]:
    return claim(tx, owner, at, limit=limit, max_concurrent=max_concurrent)
