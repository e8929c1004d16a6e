"""When and how fast the process ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType

import anyio

logger = logging.getLogger(__name__)

_FAREWELL_S = 1.2  # closing connections and the database, beside what attempts under way are given


class Stop:
    """The one request to end, and the time limit that it starts.

    Asked for by a signal or by the end of input; `ask` may be called more than once.
    """

    def __init__(self, grace_s: float, watchdog: Watchdog) -> None:
        """`grace_s` is what attempts under way get; the watchdog is started when the end is asked for."""
        self._watchdog = watchdog
        self.event = anyio.Event()
        self.service_closed = anyio.Event()
        """The process has given its runs up. A transport that goes on after `event` ends with this."""
        self._limit_s = grace_s + _FAREWELL_S
        self._deadline: float | None = None

    @property
    def is_asked(self) -> bool:
        return self.event.is_set()

    def ask(self, why: str) -> None:
        """Begin to end. From now on the process lives for the grace and a little more, whatever hangs."""
        if self.event.is_set():
            return
        logger.info("Stopping: %s", why)
        self._deadline = anyio.current_time() + self._limit_s
        self.event.set()
        self._watchdog.start(self._limit_s + 0.4)

    @property
    def left_s(self) -> float:
        """Seconds until the farewell is cut short."""
        return self._limit_s if self._deadline is None else max(0.05, self._deadline - anyio.current_time())

    async def wait(self) -> None:
        """Until it is asked for."""
        await self.event.wait()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask when the process gets SIGTERM or SIGINT; nothing on threads other than the main one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, context = asyncio.get_running_loop(), copy_context()
        numbers = (signal.SIGTERM, signal.SIGINT)

        def handle(number: int, frame: FrameType | None = None) -> None:  # noqa: ARG001 - the signature of signal.signal
            # What a signal interrupts may be a callback of another thread, in whose context no event loop is known.
            loop.call_soon_threadsafe(self.ask, signal.Signals(number).name, context=context)

        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Watchdog:
    """Ends the process when its time is over, even if a thread or a child hangs: what was acknowledged is on disk
    already."""

    def __init__(self, code: int = 0) -> None:
        self._code = code
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        """The time begins now."""
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """All has ended in order."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        sys.stderr.write("contexten-flow: something did not end in time; runs go on at the next start\n")
        sys.stderr.flush()
        os._exit(self._code)
