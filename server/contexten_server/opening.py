"""A service that may be asked before it is open.

A host that starts the server lists its tools first, and waits for the list.

The library behind the tools is imported and the database opened while the host reads the list; a call that comes before
waits for it. Where the database cannot be used each call says so, and later calls have it tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
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
        `triggers.create`, each waiting until it is open. Others are refused: nobody would wait for their answer."""
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

    @property
    def opened(self) -> FlowService | None:
        """The service where it is open."""
        return self._service

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

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """What that method of the service answers, once it is open. Raises TypeError where it is not asynchronous: at
        once where the service is open, since whoever calls such a method awaits nothing."""
        service = self._opening.opened
        return self._later(args, kwargs) if service is None else self._of(service)(*args, **kwargs)

    async def _later(self, args: Any, kwargs: Any) -> Any:
        return await self._of(await self._opening.wait())(*args, **kwargs)

    def _of(self, service: FlowService) -> Callable[..., Coroutine[Any, Any, Any]]:
        name = ".".join(self._path)
        method: Any = attrgetter(name)(service)
        if not iscoroutinefunction(method):
            raise TypeError(f"{name} is not asynchronous, and the service may not be open yet: make it `async def`")
        return method  # type: ignore[no-any-return]  # found by name
