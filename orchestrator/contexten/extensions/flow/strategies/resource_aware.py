"""By priority as far as resources allow; small runs may use what a blocked one leaves free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from .in_order import admit_head
from .priority import Priority
from .protocol import QueuedRun, Situation
from .room import Needs, Room

LOOK_AHEAD = 50
"""Runs behind the free slots that may pass a blocked one: it bounds the cost of a decision, not its fairness."""

MAX_LOAD = 0.9
"""Of the machine, 0 to 1: above it more runs would only slow those under way."""


class Reservation(NamedTuple):
    """What a blocked run is sure of."""

    at: float | None
    """When it starts at the latest, if the running runs end when expected; None where that is not known."""
    extra: Room
    """What it leaves free when it starts."""

    def is_kept_beside(self, needs: Needs, end: float) -> bool:
        """Whether a run with these needs that ends then can start now without delaying it; what is taken from the
        extra room for that is gone for the next."""
        if self.at is not None and end <= self.at:
            return True
        if not self.extra.has(needs):
            return False
        self.extra.take(needs)
        return True


def reserve(needs: Needs, room: Room, ends: Iterable[tuple[float, Needs]]) -> Reservation:
    """The first time at which a run fits, from what is free now and what is given back at known times.

    Where it fits only after a run whose end is not known, the extra room is what it does not need of what is free
    now: that is certain whenever it may start.
    """
    later = room.copy()
    for at, group in groupby(sorted(ends, key=itemgetter(0)), key=itemgetter(0)):
        for _, given in group:
            later.give(given)
        if later.has(needs):
            later.take(needs)
            return Reservation(at, later)
    extra = room.copy()
    extra.take(needs)
    return Reservation(None, extra)


class ResourceAware(Priority):
    """Runs start by priority if their demands fit; a run that fits may pass a blocked one that it does not delay.

    EASY backfill (D. A. Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995; A. W. Mu'alem, D. G. Feitelson,
    "Utilization, Predictability, Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with Backfilling",
    IEEE Transactions on Parallel and Distributed Systems 12(6), 2001), over slots and any number of pools: the first
    run that does not fit gets a reservation for the time at which the ends of running runs will have made room for
    it. A later one starts now only if it fits now and either ends before that time or fits beside the first at that
    time. Of a run without an estimate neither is known: it never passes. A run that takes longer than its estimate
    delays the reserved start by as much.

    While the machine's load is over 0.9 nothing starts, unless nothing runs: then the first run does.
    A decision costs R log R for R runs that hold slots, plus one step for each run it looks at, at most
    `look_ahead` beyond the free slots.
    """

    name = "resource_aware"
    needs_estimates = True

    def __init__(self, aging_interval_s: float, *, look_ahead: int = LOOK_AHEAD) -> None:
        super().__init__(aging_interval_s)
        self.look_ahead = look_ahead

    def admit(self, queue: Sequence[QueuedRun], situation: Situation) -> list[QueuedRun]:
        """The head of the queue up to the first run that does not fit, and those behind that do not delay it."""
        room = Room(situation)
        if situation.load is not None and situation.load > MAX_LOAD:
            return [] if situation.running else admit_head(queue[:1], room)
        admitted = admit_head(queue, room)
        waiting = queue[len(admitted) :]
        if room.has_slot and len(waiting) > 1:
            reservation = reserve(room.needs(waiting[0].demands), room, _ends(admitted, situation, room))
            admitted += _backfill(waiting[1 : 1 + self.look_ahead], room, reservation, situation.now)
        return admitted


def _ends(admitted: Sequence[QueuedRun], situation: Situation, room: Room) -> list[tuple[float, Needs]]:
    """When which needs are given back; who should have ended before is expected to end now."""
    now = situation.now
    ends = [
        (max(run.expected_end, now), room.needs(run.demands))
        for run in situation.running
        if run.expected_end is not None
    ]
    return ends + [(now + run.estimate_s, room.needs(run.demands)) for run in admitted if run.estimate_s is not None]


def _backfill(behind: Sequence[QueuedRun], room: Room, reservation: Reservation, now: float) -> list[QueuedRun]:
    passing: list[QueuedRun] = []
    for run in behind:
        if not room.has_slot:
            break
        needs = room.needs(run.demands)
        if run.estimate_s is None or not room.has(needs):
            continue
        if reservation.is_kept_beside(needs, now + run.estimate_s):
            room.take(needs)
            passing.append(run)
    return passing
