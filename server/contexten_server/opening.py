"""A service that may be asked before it is open.

A host that starts the server lists its tools first, and waits for the list.

The library behind the tools is imported and the database opened while the host reads the list; a call that comes before
waits for it. Where the database cannot be used each call says so, and later calls have it tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import anyio

from contexten.extensions.flow.clock import monotonic

if TYPE_CHECKING:
    from contexten.extensions.flow.errors import FlowError
    from contexten.extensions.flow.service import FlowService

_ANSWER_S = 0.02
_AGAIN_S = 1.0  # between two tries, however many calls come


class Opening:
    """Stands for the service until it is open, and hands calls on to it."""

    def __init__(self, monotonic: Callable[[], float] = monotonic) -> None:
        """`monotonic` tells seconds, for the pause between tries."""
        self._monotonic = monotonic
        self._service: FlowService | None = None
        self._settled = anyio.Event()  # the try that calls wait for has ended
        self._again_at = -1.0
        self.refusal: FlowError | None = None
        """Why the last try failed; None before the first one and after one that succeeded."""
        self.wanted = anyio.Event()
        """Set when a call waits for the service, or when nothing is left that should go first."""

    @property
    def service(self) -> FlowService:
        """The service as tools and resources see it: its asynchronous methods and those of its families, such as
        `triggers.create`, each waiting until it is open."""
        return cast("FlowService", _Deferred(self))

    def want(self) -> None:
        """Have it opened now; after a try that failed, only when its pause is over."""
        if self.refusal is None or self._monotonic() >= self._again_at:
            self.wanted.set()

    def want_soon(self) -> None:
        """Have it opened when the answer that is being made has gone out."""
        asyncio.get_running_loop().call_later(_ANSWER_S, self.want)

    def open(self, service: FlowService) -> None:
        """Hand calls on to this service from now on."""
        self._service = service
        self.refusal = None
        self._settled.set()

    def refuse(self, error: FlowError) -> None:
        """Answer waiting calls, and those that come soon, with this error; a later call sets `wanted` again."""
        self.refusal = error
        self._again_at = self._monotonic() + _AGAIN_S
        self.wanted = anyio.Event()
        self._settled.set()

    async def wait(self) -> FlowService:
        """The open service. Raises the FlowError for which it could not be opened."""
        if self._service is None and (self.refusal is None or self._monotonic() >= self._again_at):
            if self._settled.is_set():  # by the try before
                self._settled = anyio.Event()
            self.want()
            await self._settled.wait()
        if self._service is not None:
            return self._service
        if self.refusal is None:  # what settles sets one of them
            raise AssertionError
        raise self.refusal.with_traceback(None)


class _Deferred:
    """A name of the service, or of one of its families, such as `triggers.create`."""

    def __init__(self, opening: Opening, *path: str) -> None:
        self._opening = opening
        self._path = path

    def __getattr__(self, name: str) -> _Deferred:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Deferred(self._opening, *self._path, name)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What that method of the service answers, once it is open."""
        method = attrgetter(".".join(self._path))
        return await method(await self._opening.wait())(*args, **kwargs)
