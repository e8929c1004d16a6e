"""Clients of 2025-11-25 and earlier that subscribed to resources, each with a sender of its own.

A client that stops reading holds up its own sender only; what it has not been told yet is a set of URIs, so it
never grows
past what the client subscribed to.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from contexten_resources.served import low_level

logger = logging.getLogger(__name__)

MAX_URIS = 1000  # a client; more is a fault of the client's, and an unbounded map for us
MAX_CLIENTS = 1024
_MAX_URI_CHARS = 2000


@dataclass(eq=False, slots=True)
class Subscriber:
    """One connection: what it subscribed to and what it has still to be told."""

    connection: Connection
    uris: set[str] = field(default_factory=set)
    pending: dict[str, None] = field(default_factory=dict)
    wake: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def tell(self, uri: str) -> None:
        """Have the client told of a change; at once."""
        if uri in self.uris:
            self.pending[uri] = None
            self.wake.set()

    async def send(self) -> None:
        """Send what is pending until the connection ends. A notification to a closed connection is dropped by the
        SDK."""
        with self.scope:
            while True:
                await self.wake.wait()
                self.wake = anyio.Event()
                while self.pending:
                    uri = next(iter(self.pending))
                    del self.pending[uri]
                    await self.connection.send_resource_updated(uri)


class Subscribers:
    """The subscriptions of all legacy connections. Owned by LiveUpdates, whose task group runs the senders."""

    def __init__(self) -> None:
        self._by_connection: dict[Connection, Subscriber] = {}
        self._group: TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._by_connection)

    def start(self, group: TaskGroup) -> None:
        """Run senders in that group from now on."""
        self._group = group

    def stop(self) -> None:
        """Forget all subscriptions."""
        self._group = None
        for subscriber in self._by_connection.values():
            subscriber.scope.cancel()
        self._by_connection.clear()

    def tell(self, uri: str) -> None:
        """Have every subscriber of the URI told."""
        for subscriber in self._by_connection.values():
            subscriber.tell(uri)

    def register(self, server: MCPServer[Any]) -> None:
        """Answer resources/subscribe and resources/unsubscribe."""
        protocol = low_level(server)
        protocol.add_request_handler("resources/subscribe", SubscribeRequestParams, self._subscribe)
        protocol.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, self._unsubscribe)

    async def _subscribe(self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        uri = str(params.uri)
        if len(uri) > _MAX_URI_CHARS:  # one that names nothing is taken, and never told of
            raise MCPError(code=INVALID_PARAMS, message=f"A URI has at most {_MAX_URI_CHARS} characters.")
        connection = _connection(ctx)
        subscriber = self._by_connection.get(connection)
        if subscriber is None:
            if self._group is None or len(self._by_connection) >= MAX_CLIENTS:
                raise MCPError(code=INVALID_PARAMS, message="No more subscriptions are taken now; poll instead.")
            subscriber = Subscriber(connection)
            self._by_connection[connection] = subscriber
            connection.exit_stack.callback(self._drop, connection)
            self._group.start_soon(subscriber.send, name="legacy subscriber")
        if len(subscriber.uris) >= MAX_URIS and uri not in subscriber.uris:
            raise MCPError(
                code=INVALID_PARAMS, message=f"At most {MAX_URIS} subscriptions a client; unsubscribe first."
            )
        subscriber.uris.add(uri)
        return EmptyResult()

    async def _unsubscribe(self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        subscriber = self._by_connection.get(_connection(ctx))
        if subscriber is not None:
            subscriber.uris.discard(str(params.uri))
            subscriber.pending.pop(str(params.uri), None)
            if not subscriber.uris:
                self._drop(subscriber.connection)
        return EmptyResult()

    def _drop(self, connection: Connection) -> None:
        subscriber = self._by_connection.pop(connection, None)
        if subscriber is not None:
            subscriber.scope.cancel()


def _connection(ctx: ServerRequestContext[Any, Any]) -> Connection:
    return ctx.session._connection  # noqa: SLF001 - a session is one request's; only the connection outlives it
