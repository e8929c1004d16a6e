"""Drives the runs of this process: begins them, tells them what happened, and ends with them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..agents.protocol import Ending
from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..clock import Clock
from ..definition import Plan
from ..engines import Engines
from ..flows.plans import Plans
from ..recovery.circuits import Circuits
from ..recovery.rules import RecoveryRules
from ..scheduling.in_force import Scheduling
from ..scheduling.rates import RateLimits
from ..settings import FlowSettings
from ..states import TERMINAL_RUN_STATES
from ..store import ClaimedRun, Event, Store, Transaction
from ..store.claims import release, take_back
from .admission import Admission
from .handover import Handover
from .intake import Intake
from .leases import Leases
from .messages import Asked
from .recoverer import Recoverer
from .run import RunExecution
from .timers import Timers

logger = logging.getLogger(__name__)

MAX_TAKE_BACKS = 5  # of one run: a defect that comes back each time must not turn for ever
TAKE_BACK_S = 1.0  # before a run that could not be recorded is begun anew
CUT_OFF_S = 1.0  # for attempts to end once they are told to, and for what was told so before to end after them
FINISH_POLL_S = 0.01  # while attempts end at an orderly stop
MAX_REQUESTS = 10_000  # kept for runs that are about to be begun: some are claimed but not begun at any time

_ENDINGS = frozenset(f"run.{state}" for state in TERMINAL_RUN_STATES)
_REQUESTS = {"run.cancel_requested": "cancel", "run.pause_requested": "pause", "run.pause_withdrawn": "resume"}


class Conductor:
    """The host of all executions. Everything happens on the event loop; what it starts is over when it has stopped, but
    for attempts that refuse to end."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        settings: FlowSettings,
        clock: Clock,
        store: Store,
        plans: Plans,
        registry: AgentRegistry,
        engines: Engines,
        vault: SecretVault,
        rules: Callable[[], RecoveryRules],
        circuits: Circuits,
        limits: RateLimits,
        scheduling: Scheduling,
        holder: str,
    ) -> None:
        """Its tasks are in `group`; `rules` answers what is done about failures now, and `holder` tells people which
        process this is."""
        self.settings = settings
        self.clock = clock
        self.store = store
        self.plans = plans
        self.registry = registry
        self.engines = engines
        self.vault = vault
        self._rules = rules
        self.is_stopping = False
        self.timers = Timers(clock)
        self.admission = Admission(registry, circuits, limits, clock, self.timers, self.agents_changed)
        self.recoverer = Recoverer(self)
        self.executions: dict[str, RunExecution] = {}
        """Runs under way here, sub-flows included. Written by `begin` and `left` only."""
        self._group = group
        self._attempts: set[asyncio.Task[None]] = set()
        """Those under way, those among them that were given up. Not in the group, which waits for all that is in it."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.roots = 0
        """Slots that runs of this process hold."""
        self.intake = Intake(self, scheduling)
        self.leases = Leases(self, holder)
        self.handover = Handover(self)
        self._keeping: asyncio.Task[None] | None = None
        self._starved: dict[RunExecution, None] = {}
        self._given_up: dict[str, int] = {}
        """How often runs were begun anew that could not be recorded."""
        self._requests: dict[str, tuple[int, str]] = {}
        """What was last asked of runs, and its place in the journal: a run may be asked between its claim and here."""

    @property
    def rules(self) -> RecoveryRules:
        """What is done about failures now."""
        return self._rules()

    @property
    def owner(self) -> str:
        """Under which id this process owns runs."""
        return self.leases.server_id

    @property
    def refused(self) -> list[str]:
        """Runs that this process failed to drive so often that it leaves them to others."""
        return [run_id for run_id, times in self._given_up.items() if times > MAX_TAKE_BACKS]

    # Beginning and ending
    async def start(self) -> None:
        """Take over what others left running, then claim."""
        self._ticking = self._group.create_task(self.timers.run(), name="timers")
        await self.leases.start()
        self._keeping = self._group.create_task(self.leases.keep(), name="lease")
        self.intake.kick()
        await self.intake.plan_wake()

    async def stop(self) -> None:
        """Stop taking work, let attempts end within the grace, cut off the rest, give the runs up."""
        self.is_stopping = True
        deadline = self.clock.monotonic() + self.settings.stop_grace_s
        while self._is_busy() and self.clock.monotonic() < deadline:
            await self.clock.sleep(FINISH_POLL_S)
        deadline = self.clock.monotonic() + CUT_OFF_S
        while self._is_busy() and self.clock.monotonic() < deadline:
            for execution in list(self.executions.values()):
                execution.cut_off(Ending.STOPPING)  # again and again: some swallow a cancellation
            await self.clock.sleep(FINISH_POLL_S)
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])  # it may be becoming a server anew
        await self.leases.leave()
        self.forget(Ending.STOPPING)
        await self._end_attempts()
        self._ticking.cancel()

    async def _end_attempts(self) -> None:
        """Wait a moment for attempts that are still under way, then leave them behind."""
        for task in self._attempts:
            task.cancel()
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=CUT_OFF_S)
        for task in self._attempts:
            logger.error(
                "the attempt %s refuses to end and is left behind: its agent swallows that it is cancelled",
                task.get_name(),
            )

    def forget(self, why: Ending) -> None:
        """Drive nothing of what was driven here; attempts in flight are cut off."""
        for execution in list(self.executions.values()):
            if execution.parent is None:
                execution.lose(why)

    def _is_busy(self) -> bool:
        return self.intake.is_claiming or any(execution.has_attempts for execution in self.executions.values())

    # Beginning runs
    def begin(self, claimed: ClaimedRun, plan: Plan, parent: RunExecution | None) -> RunExecution:
        """Drive a run from here on; a sub-flow's takes its first turn at once, a root's when it is started."""
        before = self.executions.get(claimed.run_id)
        if before is not None:  # of a lease that has lapsed meanwhile
            before.lose()
        execution = RunExecution(self, claimed, plan, parent)
        self.executions[claimed.run_id] = execution
        asked_at, action = self._requests.get(claimed.run_id, (0, ""))
        if asked_at > claimed.read_at:
            execution.post(Asked(action, None))  # for its first turn
        if parent is not None:
            execution.start()
        return execution

    def kick(self) -> None:
        """Something may be queued."""
        self.intake.kick()

    def left(self, execution: RunExecution) -> None:
        """The execution drives its run no more."""
        self._starved.pop(execution, None)
        if execution.ended is not None:
            self._given_up.pop(execution.run_id, None)
        if self.executions.get(execution.run_id) is execution:
            del self.executions[execution.run_id]
            if execution.parent is None:
                self.roots -= 1
                self.intake.look()

    def take_back(self, runs: list[tuple[str, str, int]]) -> None:
        """Drive a run (the first) and its sub-flows anew from what the store says; give it back where that failed too
        often."""
        run_id = runs[0][0]
        self._given_up[run_id] = self._given_up.get(run_id, 0) + 1
        if self.is_stopping:
            return
        now = self._now()
        is_refused = self._given_up[run_id] > MAX_TAKE_BACKS
        change: Callable[[Transaction], ClaimedRun | None]
        if is_refused:
            logger.error(
                "run %s was begun anew %d times and could not go on: it is given back, for another server or the next "
                "start; this process takes it no more",
                run_id,
                MAX_TAKE_BACKS,
                extra={"run_id": run_id},
            )
            change = partial(release, runs=runs, at=now)
        else:
            change = partial(take_back, runs=runs, owner=self.owner, at=now)

        def taken(claimed: ClaimedRun | None, error: BaseException | None) -> None:
            if error is not None:
                self.timers.after(TAKE_BACK_S, lambda: self.store.submit(change, taken))
            elif claimed is not None:
                self.intake.take([claimed])
            elif not is_refused:
                self._given_up.pop(run_id, None)

        self.timers.after(TAKE_BACK_S, lambda: self.store.submit(change, taken))

    def holds(self, run_id: str) -> dict[str, str]:
        """What keeps tasks of a run under way here from starting besides busy agents, by task."""
        execution = self.executions.get(run_id)
        return execution.starter.holds() if execution is not None else {}

    # What was committed
    def heard(self, event: Event) -> None:
        """The journal has a new entry, of this process or another."""
        if event.task is not None:
            return
        self.handover.heard(event)
        if event.type in _REQUESTS and event.run_id is not None:
            self._asked(event.run_id, event.seq, _REQUESTS[event.type])
        elif event.type.startswith("server."):
            self.leases.heard(event)
        elif event.type == "run.released":
            self.leases.released()
        else:
            if event.type in _ENDINGS and event.run_id is not None:
                self._requests.pop(event.run_id, None)
            self.intake.heard(event)

    def _asked(self, run_id: str, seq: int, action: str) -> None:
        if len(self._requests) >= MAX_REQUESTS:
            del self._requests[next(iter(self._requests))]
        self._requests[run_id] = (seq, action)
        execution = self.executions.get(run_id)
        if execution is not None:
            execution.post(Asked(action, None))

    def after_commit(self) -> None:
        """All entries of a commit were heard."""
        self.intake.look()

    # What executions ask for
    def spawn(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, name: str) -> None:
        """Run a coroutine function in the conductor's task group."""
        self._group.create_task(_guarded(function(*arguments), name), name=name)

    def spawn_attempt(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, name: str) -> None:
        """Run a coroutine function that waits for an agent: the conductor leaves it behind where it refuses to end."""
        task = self._loop.create_task(_guarded(function(*arguments), name), name=name)
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

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
        self.handover.consider(execution)

    def _now(self) -> float:
        return self.clock.timestamp()


async def _guarded(work: Coroutine[Any, Any, Any], name: str) -> None:
    """A defect in one run's work must not end the others."""
    try:
        await work
    except Exception:
        logger.exception("%s failed", name)
