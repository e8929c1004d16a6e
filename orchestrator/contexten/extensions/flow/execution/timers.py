"""Alarms of this process: one heap, one sleeping task."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import anyio

from ..clock import Clock


class Alarm:
    """A callback that is due at a time; `cancel` forgets it."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back. Safe after it rang."""
        self.callback = None


class Timers:
    """Calls back on the event loop when a time has come, never early. Callbacks are quick and do not raise."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._sleep: anyio.CancelScope | None = None
        self._wake = anyio.Event()

    def after(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        """Call back once, `seconds` from now by the monotonic clock."""
        alarm = Alarm(self._clock.monotonic() + max(0.0, seconds), callback)
        heapq.heappush(self._heap, (alarm.due, next(self._numbers), alarm))
        if self._heap[0][2] is alarm:
            self._wake.set()
            if self._sleep is not None:
                self._sleep.cancel()
        return alarm

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            now = self._clock.monotonic()
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].callback is None):
                alarm = heapq.heappop(self._heap)[2]
                callback, alarm.callback = alarm.callback, None
                if callback is not None:
                    callback()
            self._wake = anyio.Event()
            if not self._heap:
                await self._wake.wait()
                continue
            with anyio.CancelScope() as self._sleep:
                await self._clock.sleep(self._heap[0][0] - self._clock.monotonic())
            self._sleep = None
