"""A service that may be asked before it is open.

A host that starts the server lists its tools first, and waits for the list.

The library behind the tools is imported and the database opened while the host reads the list; a call that comes before
waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import anyio

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService

_ANSWER_S = 0.02


class Opening:
    """Stands for the service until it is open, and hands calls on to it."""

    def __init__(self) -> None:
        self._service: FlowService | None = None
        self._opened = anyio.Event()
        self.wanted = anyio.Event()
        """Set when a call waits for the service, or when nothing is left that should go first."""

    @property
    def service(self) -> FlowService:
        """The service as tools and resources see it: its asynchronous methods, each waiting until it is open."""
        return cast("FlowService", _Deferred(self))

    def want(self) -> None:
        """Have it opened now."""
        self.wanted.set()

    def want_soon(self) -> None:
        """Have it opened when the answer that is being made has gone out."""
        asyncio.get_running_loop().call_later(_ANSWER_S, self.want)

    def open(self, service: FlowService) -> None:
        """Hand calls on to this service from now on."""
        self._service = service
        self._opened.set()

    async def wait(self) -> FlowService:
        """The open service."""
        if self._service is None:
            self.want()
            await self._opened.wait()
        if self._service is None:  # `open` sets one before the other
            raise AssertionError
        return self._service


class _Deferred:
    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await getattr(await self._opening.wait(), name)(*args, **kwargs)

        return call
