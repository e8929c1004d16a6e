"""Alarms of this process: one heap, one sleeping task."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from itertools import count

import anyio

from ..clock import Clock

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 60.0  # a machine that slept, or whose clock was set, rings at most this late
COMPACT_FROM = 1000  # cancelled alarms: below that they cost less than looking for them


class Alarm:
    """A callback that is due at a time; `cancel` forgets it."""

    __slots__ = ("_timers", "callback", "until")

    def __init__(self, timers: Timers, callback: Callable[[], None], until: float | None = None) -> None:
        self._timers = timers
        self.callback: Callable[[], None] | None = callback
        self.until = until

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
        alarm = Alarm(self, callback)
        self._push(alarm, seconds)
        return alarm

    def at(self, time: float, callback: Callable[[], None]) -> Alarm:
        """Call back once when the wall clock shows `time`, in seconds since the epoch."""
        alarm = Alarm(self, callback, time)
        self._push(alarm, min(time - self._clock.timestamp(), LOOK_AGAIN_S))
        return alarm

    def _push(self, alarm: Alarm, seconds: float) -> None:
        heapq.heappush(self._heap, (self._clock.monotonic() + max(0.0, seconds), next(self._numbers), alarm))
        if self._heap[0][2] is alarm:
            self._wake.set()
            if self._sleep is not None:
                self._sleep.cancel()

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
                if alarm.callback is None:
                    continue
                left = 0.0 if alarm.until is None else alarm.until - self._clock.timestamp()
                if left > 0:
                    self._push(alarm, min(left, LOOK_AGAIN_S))
                    continue
                callback, alarm.callback = alarm.callback, None
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
