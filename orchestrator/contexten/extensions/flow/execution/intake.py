"""What comes in: runs from the queue while slots are free, and those whose time has come."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..definition import Plan
from ..errors import FlowError
from ..scheduling.in_force import Scheduling
from ..states import TERMINAL_RUN_STATES
from ..store import ClaimedRun, Event, NewRun, Submitted, Transaction
from ..store.claims import wake_due
from ..store.deadlines import miss_due
from ..store.dependencies import settle
from ..store.queue import Claimed, Rules, claim
from ..store.sql import SQL
from ..store.submissions import submit, submit_and_start
from ..strategies.resource_aware import MAX_LOAD
from .machine_load import SAMPLE_S, MachineLoad
from .run import Opening
from .share import Share
from .timers import Alarm

if TYPE_CHECKING:
    from .conductor import Conductor

logger = logging.getLogger(__name__)

CLAIM_BATCH = 64  # runs claimed in one change: more would make the changes of running ones wait
RETRY_S = 1.0  # between tries to claim or wake while the database cannot be written
UNREADABLE_S = 30.0  # between tries to read a definition that cannot be read

_FREEING = frozenset({"run.waiting", "run.paused", *(f"run.{state}" for state in TERMINAL_RUN_STATES)})


_FAILING = frozenset({"run.failed", "run.cancelled"})


class Intake:
    """Fills this process's slots. Everything happens on the event loop; decisions are taken in the store's changes."""

    def __init__(self, conductor: Conductor, scheduling: Scheduling) -> None:
        self._conductor = conductor
        self._scheduling = scheduling
        self.share = Share(conductor.timers, self.look)
        self._is_claiming = False
        self._may_find = True
        """Whether another look at the queue may find a run that can start."""
        self._is_held_up = False
        """Whether queued runs waited, at the last look, for others to end."""
        self._has_news = False
        """Whether runs ended, or were queued to wait for others, since the last look: it may not have seen that."""
        self._is_settling = False
        """Whether the runs that wait for failed ones are being looked for."""
        self._must_settle = False
        """Whether they are to be looked for once more."""
        self._load = MachineLoad(conductor.clock)
        self._relief: Alarm | None = None
        self._wake: Alarm | None = None
        self._wake_at = float("inf")

    @property
    def is_claiming(self) -> bool:
        """Whether runs are on their way in."""
        return self._is_claiming

    # Submitting
    def submit(self, run: NewRun, plan: Plan, settle: Callable[[Submitted | None, BaseException | None], None]) -> None:
        """Record a run; where a slot is free, none is queued and nothing can hold it up, start it in that change."""
        conductor, limit = self._conductor, self._scheduling.max_concurrent_flows
        is_simple = not (run.dependencies or run.demands or self._scheduling.strategy.look_ahead)
        has_room = self.share.has_room(conductor.roots, limit)
        is_full = not has_room or self._may_find or self._is_held_up or self._is_claiming
        if is_full or not is_simple or not conductor.owner or conductor.is_stopping:
            conductor.store.submit(partial(submit, run=run), settle)
            return
        conductor.roots += 1
        execution = conductor.begin(ClaimedRun.of(run), plan, None)
        change = partial(submit_and_start, run=run, owner=conductor.owner, max_concurrent=limit)
        execution.start(Opening(change, settle))

    # Claiming
    def kick(self) -> None:
        """Something may be queued: claim while slots are free."""
        self._may_find = True
        self.look()

    def look(self) -> None:
        """Claim what the queue may have for the free slots, once this process is a server."""
        conductor = self._conductor
        if self._is_claiming or conductor.is_stopping or not self._may_find or not conductor.owner:
            return
        room = self.share.room(conductor.roots, self._scheduling.max_concurrent_flows)
        if room <= 0:
            return
        self._is_claiming = True
        self._may_find = self._has_news = False
        rules = self._rules()
        conductor.store.submit(
            partial(
                claim,
                owner=conductor.owner,
                at=conductor.clock.timestamp(),
                limit=min(room, CLAIM_BATCH),
                rules=rules,
            ),
            partial(self._claimed, rules),
        )

    def _rules(self) -> Rules:
        strategy = self._scheduling.strategy
        return Rules(
            strategy=strategy,
            max_concurrent_flows=self._scheduling.max_concurrent_flows,
            agents=self._conductor.registry.places() if strategy.look_ahead else {},
            load=self._load.read() if strategy.look_ahead else None,
        )

    def _claimed(self, rules: Rules, claimed: Claimed | None, error: BaseException | None) -> None:
        conductor = self._conductor
        self._is_claiming = False
        if error is not None or claimed is None:
            logger.warning("claiming failed and will be tried again: %s", error)
            if not conductor.is_stopping:
                conductor.timers.after(RETRY_S, self.kick)
            return
        if conductor.is_stopping:  # in the last moment: the server gives them up as it leaves
            return
        self._may_find |= claimed.has_more or (claimed.has_blocked and self._has_news)
        self._is_held_up = claimed.has_blocked or (self._is_held_up and self._has_news)
        if claimed.has_blocked and self._has_news:
            self._settle_failures()  # there may be no slot for another look
        if claimed.has_blocked and rules.load is not None and rules.load > MAX_LOAD and self._relief is None:
            self._relief = conductor.timers.after(
                SAMPLE_S, self._look_after_load
            )  # no event tells of a load that falls
        self.take(claimed.runs)
        self.look()

    def _look_after_load(self) -> None:
        self._relief = None
        self.kick()

    def take(self, runs: Sequence[ClaimedRun]) -> None:
        """Drive runs that this process has come to own."""
        conductor = self._conductor
        conductor.roots += len(runs)
        for run in runs:
            plan = conductor.plans.get(run.flow_id, run.version)
            if plan is not None:
                conductor.begin(run, plan, None).start()
            else:
                conductor.spawn(self.begin, run, name=f"begin {run.run_id}")

    async def begin(self, claimed: ClaimedRun) -> None:
        """Drive a run that holds a slot, once its definition is read."""
        conductor = self._conductor
        try:
            plan, _ = await conductor.plans.plan_of(claimed.flow_id, claimed.version)
        except (FlowError, ValueError):
            logger.exception("run %s cannot be driven now: its definition cannot be read", claimed.run_id)
            again = partial(conductor.spawn, self.begin, claimed, name="begin again")
            conductor.timers.after(UNREADABLE_S, again)
            return
        conductor.begin(claimed, plan, None).start()

    # Waking
    async def plan_wake(self) -> None:
        """Wake at the earliest time for which a run waits, or by which it should be done."""
        conductor = self._conductor
        try:
            row = await conductor.store.row(SQL["next_wake"])
        except FlowError as error:
            logger.warning("the next wake-up could not be read and will be looked for again: %s", error)
            conductor.timers.after(RETRY_S, partial(conductor.spawn, self.plan_wake, name="plan wake"))
            return
        if row is not None and row[0] is not None:
            self._note(row[0])

    def _note(self, at: float) -> None:
        if at < self._wake_at:
            if self._wake is not None:
                self._wake.cancel()
            self._wake_at = at
            self._wake = self._conductor.timers.at(at, self._wake_due)

    def _wake_due(self) -> None:
        self._wake_at = float("inf")
        self._conductor.store.submit(partial(_wake, at=self._conductor.clock.timestamp()), self._woken)

    def _woken(self, _count: Any, error: BaseException | None) -> None:
        conductor = self._conductor
        if error is not None:
            conductor.timers.after(RETRY_S, self._wake_due)
        else:
            conductor.spawn(self.plan_wake, name="plan wake")

    # What was committed
    def heard(self, event: Event) -> None:
        """The journal has a new entry about a run, of this process or another."""
        if event.type == "run.scheduled":
            self._may_find |= event.run_id not in self._conductor.executions
            data = json.loads(event.data) if event.data else {}
            if (deadline := data.get("deadline")) is not None:
                self._note(deadline)
            if "dependencies" in data:
                self._is_held_up = self._has_news = True
        elif event.type in _FREEING:
            self._has_news = True
            self._may_find |= self._is_held_up
            if self._is_held_up and event.type in _FAILING:
                self._settle_failures()
            data = json.loads(event.data) if event.type == "run.waiting" and event.data else {}
            if (wake_at := data.get("wake_at")) is not None:
                self._note(wake_at)

    def _settle_failures(self) -> None:
        """Let the runs that wait for failed ones fail now, not with a free slot."""
        if self._is_settling:
            self._must_settle = True
            return
        self._is_settling, self._must_settle = True, False
        conductor = self._conductor
        conductor.store.submit(partial(settle, at=conductor.clock.timestamp()), self._settled)

    def _settled(self, has_more: bool | None, error: BaseException | None) -> None:
        self._is_settling = False
        if error is not None:
            logger.warning("dependents of failed runs could not be looked for and will be again: %s", error)
            if not self._conductor.is_stopping:
                self._conductor.timers.after(RETRY_S, self._settle_failures)
        elif has_more or self._must_settle:
            self._settle_failures()


def _wake(tx: Transaction, at: float) -> int:
    return wake_due(tx, at) + miss_due(tx, at)
