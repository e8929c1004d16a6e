"""Live updates for both protocol eras, at most ten a second a resource.

The first change of a resource is told at once; changes within the next tenth of a second are told together at its
end, so
that the last state is always told. Nothing is replayed: a notification says "read it again", never what changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from heapq import heappop, heappush
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourceUpdated,
    ServerEvent,
)
from mcp_types import SubscriptionsListenRequestParams

from contexten.extensions.flow.clock import Clock, SystemClock
from contexten_resources.served import low_level
from contexten_resources.subscribers import Subscribers
from contexten_resources.uris import touched

if TYPE_CHECKING:
    from contexten.extensions.flow.live.watching import Change
    from contexten.extensions.flow.service import FlowService

logger = logging.getLogger(__name__)

INTERVAL_S = 0.1
MAX_TRACKED = 50_000  # resources changed within one interval; past it all are told as they come


class CountingBus(InMemorySubscriptionBus):
    """A bus that knows whether anybody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners = 0

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        leave = super().subscribe(listener)
        self.listeners += 1
        left = False

        def unsubscribe() -> None:
            nonlocal left
            if not left:
                left = True
                self.listeners -= 1
                leave()

        return unsubscribe


class LiveUpdates:
    """Tells subscribers of changes while it is open (`async with`).

    Pass `bus` to the MCPServer, `attach` it, then open it beside the service.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.bus = CountingBus()
        self.legacy = Subscribers()
        self._clock = clock or SystemClock()
        self._listen = ListenHandler(self.bus)
        self._group: TaskGroup | None = None
        self._leave: Callable[[], None] | None = None
        # Written by the service's listener and the sender task, both on the event loop.
        self._quiet_until: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []
        self._pending: set[str] = set()
        self._wake = anyio.Event()

    def attach(self, server: MCPServer[Any]) -> None:
        """Serve subscriptions of both eras on that server."""
        low_level(server).add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, self._listen)
        self.legacy.register(server)

    async def start(self, service: FlowService) -> None:
        """Follow the service's changes from now on."""
        if self._group is None:
            raise RuntimeError("LiveUpdates is opened with `async with` before it starts")
        self._leave = service.subscribe(self.on_change)

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        self.legacy.start(self._group)
        self._group.start_soon(self._send_due, name="live updates")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.close_streams()
        group, self._group = self._group, None
        if group is None:
            return None
        group.cancel_scope.cancel()
        return await group.__aexit__(exc_type, exc, traceback)

    def close_streams(self) -> None:
        """End every open subscription in the protocol's own way; no more changes are told."""
        if self._leave is not None:
            self._leave()
            self._leave = None
        self._listen.close()
        self.legacy.stop()

    def on_change(self, change: Change) -> None:
        """Note what changed. Quick, never raises, on the event loop."""
        if not self.bus.listeners and not len(self.legacy):
            return
        now = self._clock.monotonic()
        for uri in touched(change):
            if uri in self._pending:
                continue
            self._pending.add(uri)
            heappush(self._due, (max(now, self._quiet_until.get(uri, now)), uri))
        self._wake.set()

    async def _send_due(self) -> None:
        while True:
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                _, uri = heappop(self._due)
                self._pending.discard(uri)
                self._quiet_until[uri] = now + INTERVAL_S
                self.legacy.tell(uri)
                await self.bus.publish(ResourceUpdated(uri=uri))
                now = self._clock.monotonic()
            if len(self._quiet_until) > MAX_TRACKED or not self._due:
                self._quiet_until = {uri: until for uri, until in self._quiet_until.items() if until > now}
            self._wake = anyio.Event()
            if self._due:
                await self._sleep_until(self._due[0][0])
            else:
                await self._wake.wait()

    async def _sleep_until(self, due: float) -> None:
        """Until then, or until something else is noted."""
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                await self._clock.sleep(due - self._clock.monotonic())
                group.cancel_scope.cancel()

            group.start_soon(wait)
            await self._wake.wait()
            group.cancel_scope.cancel()
