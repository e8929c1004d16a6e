"""The process is asked to end, whatever it does at that moment."""

from __future__ import annotations

import signal
from contextvars import Context

import anyio
import pytest

from contexten_server.stopping import Stop, Watchdog

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_heard_in_the_middle_of_another_threads_callback(number: signal.Signals) -> None:
    watchdog = Watchdog()
    stop = Stop(60, watchdog)
    with stop.on_signals():
        Context().run(signal.raise_signal, number)  # as a callback of a thread that knows no event loop is run
        with anyio.fail_after(10):
            await stop.wait()
    watchdog.cancel()
    assert stop.left_s > 50
