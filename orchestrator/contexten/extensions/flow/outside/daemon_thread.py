"""A blocking call on a thread that cannot keep the process from ending.

The threads of asyncio and anyio are joined at exit, so a call that hangs in one of them would hang the whole process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def call_in_daemon_thread(call: Callable[[], T], *, name: str, limiter: anyio.CapacityLimiter) -> T:
    """The call's result or exception. On cancellation the thread is left to itself and its result dropped; it keeps
    its place in `limiter` until it ends, so that what hangs cannot pile up threads without bound."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    borrower = object()
    await limiter.acquire_on_behalf_of(borrower)

    def finish(result: Any, error: BaseException | None) -> None:
        limiter.release_on_behalf_of(borrower)
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration) or not isinstance(error, Exception):
            # A future cannot carry the first; the others, SystemExit among them, would end the whole process.
            future.set_exception(RuntimeError(f"the call raised {type(error).__name__}"))
        else:
            future.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as raised:  # noqa: BLE001 - it is raised again where the call is awaited
            error = raised
        with suppress(RuntimeError):  # the loop was closed meanwhile; nobody waits
            loop.call_soon_threadsafe(finish, result, error)

    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except BaseException:
        limiter.release_on_behalf_of(borrower)
        raise
    return await future
