"""One run under way: a mailbox, and one change in flight.

Whatever happens to the run (an attempt ended, an alarm rang, somebody asked to cancel) is posted to its mailbox. A turn
takes all messages, decides what follows, and hands the store one change; the effects (the next attempts) begin after
its commit. While a change is in flight messages gather for the next turn. So a run's state is decided in one place,
one step at a time, without locks, and a wake-up cannot be lost.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..agents.protocol import Ending
from ..clock import iso
from ..definition import Plan, check_json
from ..errors import StoreConflict, StoreError
from ..states import RunState, TaskState
from ..store import ClaimedRun, Refused, RunMove, StoredText, Submitted, Transaction
from ..store.advances import REQUEST_PENDING, Advance, advance
from .caching import keep
from .draft import Draft, End
from .host import Host
from .messages import (
    AlarmRang,
    Asked,
    AttemptEnded,
    CacheRead,
    ChildEnded,
    GraceIsOver,
    Logged,
    Message,
    SubflowReady,
    TimeIsUp,
)
from .outcome import CutOff, Failed, Succeeded
from .parking import may_park
from .starting import Starter
from .subflows import Subflows
from .tasks import RunTasks
from .unit import Lookup, Unit

logger = logging.getLogger(__name__)

STORE_RETRY_S = 1.0  # between tries to record a change while the disk is full or the database locked


class Opening(NamedTuple):
    """How a run is recorded together with its first moves: the change, and who hears what became of it."""

    change: Callable[[Transaction], Submitted]
    settle: Callable[[Submitted | None, BaseException | None], None]


class RunExecution:
    """Drives one run that this process owns. Lives on the event loop; never raises."""

    def __init__(self, host: Host, claimed: ClaimedRun, plan: Plan, parent: RunExecution | None = None) -> None:
        self.host = host
        self.claimed = claimed
        self.plan = plan
        self.parent = parent
        self.run_id = claimed.run_id
        self.flow_id = claimed.flow_id
        self.staff = host.engines.staff(claimed.framework)
        """The agents that may take its tasks."""
        self._mailbox: deque[Message] = deque()
        self._in_flight = False
        self._is_poked = False
        self._is_turning = True  # until it is started: what is posted before waits in the mailbox
        self.is_over = False
        """Whether it drives its run no more."""
        self.ending: End | None = None
        """How the run is to end, once it is being cancelled or timed out."""
        self.grace_is_over = False
        """Whether attempts that were told to end had their time."""
        self.is_pausing = claimed.request == "pause"
        self._deadline: Any = None
        self._opening: Opening | None = None
        self.ended: tuple[RunMove, int] | None = None
        """The move that ended the run and its place in the journal, once it is durable."""
        self.tasks = RunTasks(host, claimed, plan, lambda unit: self.post(AlarmRang(unit)))
        self.subflows = Subflows(self)
        self.starter = Starter(self)
        self.starter.restore(self.tasks.left_behind)

    # What others see
    @property
    def is_idle(self) -> bool:
        """Nothing works on it now: only times are waited for."""
        if self.is_over or self._in_flight or self._mailbox:
            return self.is_over
        is_starved = self.starter.is_starved and not self.is_pausing  # a paused run waits for no agent
        return not is_starved and not self.tasks.are_busy

    @property
    def has_attempts(self) -> bool:
        """Whether attempts of it, or of its sub-flows, are under way, or a change is."""
        return (
            self._in_flight
            or self.tasks.have_attempts
            or any(child.has_attempts for child in self.subflows.live.values())
        )

    def wake_at(self) -> float | None:
        """The earliest time that it waits for, sub-flows and the run's own limit included."""
        times = [self.tasks.wake_at(), self._time_limit(), *(child.wake_at() for child in self.subflows.live.values())]
        return min((at for at in times if at is not None), default=None)

    def start(self, opening: Opening | None = None) -> None:
        """Take the first turn; with `opening`, record the run itself in the same change."""
        self._opening = opening
        limit = self._time_limit()
        if limit is not None:
            if limit <= self._now():
                self._mailbox.append(TimeIsUp())
            else:
                self._deadline = self.host.timers.at(limit, lambda: self.post(TimeIsUp()))
        self.subflows.restore(self.claimed.children)
        if self.claimed.request == "cancel":
            self._mailbox.append(Asked("cancel", self.claimed.reason))
        self._is_turning = False
        self._turn()

    def post(self, message: Message) -> None:
        """Tell the run something."""
        if not self.is_over:
            self._mailbox.append(message)
            self._turn()

    def poke(self) -> None:
        """An agent may have a free place, or a sub-flow has become idle."""
        self._is_poked = True
        self._turn()

    def cut_off(self, why: Ending) -> None:
        """End the attempts in flight; what becomes of them is not recorded here."""
        self.tasks.cut_off(why)
        for child in list(self.subflows.live.values()):
            child.cut_off(why)

    def root(self) -> RunExecution:
        """The run at the top, itself where it is no sub-flow's."""
        return self if self.parent is None else self.parent.root()

    def family(self) -> list[tuple[str, str, int]]:
        """The run and its sub-flows' runs that are driven here: (run_id, flow_id, fence)."""
        return [(self.run_id, self.flow_id, self.claimed.fence), *self.subflows.family()]

    def give_up(self) -> None:
        """What is known of the run here is wrong: begin anew from what the store says, if it is still ours."""
        runs = self.family()
        self.lose()
        self.host.take_back(runs)

    def lose(self, why: Ending = Ending.LOST) -> None:
        """Forget the run: it belongs to another process now, or to nobody."""
        self.cut_off(why)
        self._leave()

    # Turns
    def _turn(self) -> None:
        if self._in_flight or self.is_over or self._is_turning:
            return
        self._is_turning = True
        try:
            self._take_turn()
        finally:
            self._is_turning = False

    def _take_turn(self) -> None:
        self._is_poked = False
        draft = Draft(self._now())
        try:
            while self._mailbox:
                self._take(self._mailbox.popleft(), draft)
            self._move_on(draft)
        except Exception as error:  # a defect must not stop the others, nor leave this run without a driver
            logger.exception("run %s could not go on", self.run_id, extra={"run_id": self.run_id})
            self._abandon(draft, error)
            return
        if not draft.is_empty or self._opening is not None:
            self._commit(draft)
        elif self.parent is not None and self.is_idle:
            self.parent.poke()

    def _commit(self, draft: Draft) -> None:
        for unit in draft.units():
            if unit.row.state.is_terminal:
                self.tasks.live.pop(unit, None)
        move = draft.as_move(self.run_id, self.flow_id, self.claimed.fence)
        self._in_flight = True
        if self._opening is not None:
            change = partial(_open, self._opening.change, move)
            self.host.store.submit(change, partial(self._opened, draft, move, self._opening))
            self._opening = None
        else:
            self.host.store.submit(Advance(move), partial(self._settled, draft, move))

    def _opened(
        self, draft: Draft, move: RunMove, opening: Opening, submitted: Submitted | None, error: BaseException | None
    ) -> None:
        if submitted is not None and submitted.has_started:
            opening.settle(submitted, None)
            self._settled(draft, move, submitted.cursor, None)
            return
        self._in_flight = False
        self._leave()
        self._give_back(draft)
        self.host.kick()
        opening.settle(submitted, error)

    def _abandon(self, draft: Draft, error: Exception) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            self.root().give_up()
        else:
            self._leave()
        self._give_back(draft)
        if opening is not None:
            opening.settle(None, error)

    def _give_back(self, draft: Draft) -> None:
        """Let others have the agents' places; after the run was left, for it would take them itself."""
        for agent, task in draft.reserved:
            self.host.registry.release(agent, task)
        if draft.reserved:
            self.host.agents_changed()

    def _settled(self, draft: Draft, move: RunMove, result: Any, error: BaseException | None) -> None:
        if self.is_over:  # lost meanwhile: what was recorded is its next owner's
            self._in_flight = False
            self._give_back(draft)
            return
        if isinstance(error, StoreError) and not isinstance(error, StoreConflict):
            self._try_again(draft, move, error)
            return
        if error is not None:
            self._in_flight = False
            level = logging.WARNING if isinstance(error, Refused | StoreConflict) else logging.ERROR
            logger.log(level, "run %s is driven no more here: %s", self.run_id, error, extra={"run_id": self.run_id})
            self.root().give_up()
            self._give_back(draft)
            return
        for effect in draft.effects:
            effect()
        self._in_flight = False  # not before: an effect may poke this run while others are still to come
        if move.to is not None and result != REQUEST_PENDING:
            if move.to.is_terminal:
                self.ended = (move, int(result))
            self._leave(move)
        elif self._mailbox or self._is_poked:
            self._turn()
        elif self.parent is not None and self.is_idle:
            self.parent.poke()
        elif self.starter.is_starved:
            self.host.wait_for_agent(self)  # it may have been kept here by what was in flight

    def _try_again(self, draft: Draft, move: RunMove, error: StoreError) -> None:
        if self.host.is_stopping:
            self._in_flight = False
            self.lose(Ending.STOPPING)
            self._give_back(draft)
            return
        logger.warning("run %s waits for the database: %s", self.run_id, error, extra={"run_id": self.run_id})
        again = partial(self.host.store.submit, Advance(move), partial(self._settled, draft, move))
        self.host.timers.after(STORE_RETRY_S, again)

    def _leave(self, move: RunMove | None = None) -> None:
        self.is_over = True
        self._mailbox.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        for unit in list(self.tasks.live):
            unit.disarm()
        for child in list(self.subflows.live.values()):
            child.lose()
        self.host.left(self)
        if self.parent is not None:
            self.parent.subflows.left(self, move)

    # Messages
    def _take(self, message: Message, draft: Draft) -> None:
        match message:
            case AttemptEnded(unit, outcome):
                self._attempt_ended(unit, outcome, draft)
            case AlarmRang(unit):
                unit.alarm = None
                if unit.row.state is TaskState.RETRYING:
                    self.starter.ready.append(unit)
                elif unit.row.state is TaskState.WAITING and unit.child is None:
                    value = {"waited_until": iso(unit.row.wake_at)}
                    self.tasks.complete(unit, StoredText.of(check_json(value, max_bytes=1000)), draft)
            case CacheRead(unit, key, found):
                unit.is_preparing = False
                unit.lookup = Lookup(key, found)
                self.starter.ready.append(unit)
            case SubflowReady():
                self.subflows.begin(message, draft)
            case ChildEnded():
                self.subflows.ended(message, draft)
            case Asked(action, reason):
                self._asked(action, reason)
            case TimeIsUp():
                if self.ending is None:
                    limit = self._limit_s()
                    failure = Failed(kind="timeout", message=f"The run took longer than its limit of {limit:g} s.")
                    error = failure.as_json(task="", attempt=0)
                    self._begin_end(End(RunState.FAILED, error=error, reason="the run's time is up"))
            case GraceIsOver():
                self.grace_is_over = True
                self.subflows.post(message)
            case Logged(unit, event, data):
                draft.log(unit, event, data)

    def _asked(self, action: str, reason: str | None) -> None:
        if action == "resume":
            self.is_pausing = False
        elif action == "pause":
            self.is_pausing = True
        elif self.ending is None:
            self._begin_end(End(RunState.CANCELLED, reason=reason))
        self.subflows.post(Asked(action, reason))

    def _begin_end(self, end: End) -> None:
        self.ending = end
        self.cut_off(Ending.CANCELLED if end.to is RunState.CANCELLED else Ending.TIMED_OUT)
        self.subflows.post(Asked("cancel", end.reason))
        self.host.timers.after(self.host.settings.cancel_grace_s, lambda: self.post(GraceIsOver()))

    def _attempt_ended(self, unit: Unit, outcome: Succeeded | Failed | CutOff, draft: Draft) -> None:
        unit.is_working = False
        if isinstance(outcome, Succeeded):
            keep(unit, outcome.text, draft)
            self.tasks.complete(unit, outcome.text, draft)
        elif self.ending is not None:
            draft.move(unit, TaskState.CANCELLED, reason=self.ending.reason or "run cancelled")
        elif isinstance(outcome, Failed):
            self.tasks.fail(unit, outcome, draft)
        # else: cut off by an orderly stop; the row stays running for the next server

    # Moving on
    def _move_on(self, draft: Draft) -> None:
        if self.ending is not None:
            if not self.subflows.live and (self.grace_is_over or not self.tasks.are_busy):  # sub-flows end first
                draft.end = self.tasks.cancel(draft, self.ending)
            return
        if self.is_pausing:
            if not self.tasks.are_busy and self.parent is None:
                draft.end = End(RunState.PAUSED, wake_at=self.wake_at())
            return
        while True:
            self.starter.ready.extend(self.tasks.decide(draft))
            if not self.starter.start(draft):
                break
        if self.tasks.have_ended:
            draft.end = self.tasks.end()
        elif self.parent is None and not self.host.is_stopping and may_park(self, draft.at):
            draft.end = End(RunState.WAITING, wake_at=self.wake_at())

    # The rest
    def _limit_s(self) -> float | None:
        limits = [self.claimed.timeout_s, self.plan.definition.context.get("timeout")]
        return min((limit for limit in limits if limit is not None), default=None)

    def _time_limit(self) -> float | None:
        limit = self._limit_s()
        return None if limit is None else self.claimed.started_at + self.claimed.paused_s + limit

    def _now(self) -> float:
        return self.host.clock.timestamp()


def _open(submit: Callable[[Transaction], Submitted], move: RunMove, tx: Transaction) -> Submitted:
    submitted = submit(tx)
    if submitted.has_started and (move.tasks or move.logs or move.to):
        advance(tx, move)
    return submitted
