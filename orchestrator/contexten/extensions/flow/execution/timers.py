"""Alarms of this process: one heap, one sleeping task."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from itertools import count

import anyio

from ..clock import Clock

logger = logging.getLogger(__name__)

COMPACT_FROM = 1000  # cancelled alarms: below that they cost less than looking for them


class Alarm:
    """A callback that is due at a time; `cancel` forgets it."""

    __slots__ = ("_timers", "callback", "due")

    def __init__(self, timers: Timers, due: float, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back. Safe after it rang."""
        if self.callback is not None:
            self.callback = None
            self._timers.forget_one()


class Timers:
    """Calls back on the event loop when a time has come, never early. Callbacks are quick and do not raise."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._cancelled = 0
        """Cancelled alarms that are still in the heap, at most."""
        self._sleep: anyio.CancelScope | None = None
        self._wake = anyio.Event()

    def after(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        """Call back once, `seconds` from now by the monotonic clock."""
        alarm = Alarm(self, self._clock.monotonic() + max(0.0, seconds), callback)
        heapq.heappush(self._heap, (alarm.due, next(self._numbers), alarm))
        if self._heap[0][2] is alarm:
            self._wake.set()
            if self._sleep is not None:
                self._sleep.cancel()
        return alarm

    def forget_one(self) -> None:
        """An alarm was cancelled; where most are, the heap is rebuilt without them."""
        self._cancelled += 1
        if self._cancelled > COMPACT_FROM and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            now = self._clock.monotonic()
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].callback is None):
                alarm = heapq.heappop(self._heap)[2]
                callback, alarm.callback = alarm.callback, None
                if callback is None:
                    continue
                try:
                    callback()
                except Exception:
                    logger.exception("an alarm's callback failed")
            self._wake = anyio.Event()
            if not self._heap:
                await self._wake.wait()
                continue
            with anyio.CancelScope() as self._sleep:
                await self._clock.sleep(self._heap[0][0] - self._clock.monotonic())
            self._sleep = None
