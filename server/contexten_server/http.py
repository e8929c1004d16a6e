"""All that is served over HTTP, as one application: MCP at /mcp, /sse and /messages/, the dashboard, its API, and the
process's own pages."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from contexten_server import api, health, hooks, metrics
from contexten_server.access import BindRefused, EndWithServer, Guard, bracketed, security_for
from contexten_server.authentication import Authentication
from contexten_server.browsers import Browsers
from contexten_server.dashboard import pages
from contexten_server.http_errors import not_served
from contexten_server.stopping import Stop
from contexten_tools import App, ToolServer

logger = logging.getLogger(__name__)

_IDLE_SESSION_S = 24 * 3600.0  # legacy sessions that nobody has used for a day are forgotten
_CLOSE_S = 1  # for connections that stay open although their streams have ended


def bind(host: str, port: int) -> socket.socket:
    """A listening address. Raises BindRefused where it is taken or does not exist."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BindRefused(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise BindRefused(
            f"cannot listen on {bracketed(host)}:{port}: {error.strerror or error}. "
            "Stop what uses the port, or choose another with --port."
        ) from error
    return sock


def http_app(
    server: ToolServer,
    app: App,
    *,
    host: str,
    stopping: anyio.Event | None = None,
    closing: ExitStack | None = None,
) -> ASGIApp:
    """The whole HTTP application, guarded. `stopping` ends its open streams when set; `closing` takes what is to be
    ended when it is served no more, where the service lives on."""
    security = security_for(host, app.settings.own_urls)
    authentication = Authentication.of(app.settings)
    streamable = server.streamable_http_app(transport_security=security, host=host)
    server.session_manager.session_idle_timeout = _IDLE_SESSION_S

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    mcp = [*streamable.routes, *server.sse_app(transport_security=security, host=host).routes]
    application = Starlette(
        routes=[
            *pages.routes(),
            *health.routes(app, stopping),
            *(authentication.routes if authentication is not None else ()),
            *metrics.routes(app, closing),
            *hooks.routes(app),
            Mount("/api", api.application(app)),
            *mcp,
            *(Route(f"{route.path}/", route.endpoint) for route in mcp if isinstance(route, Route)),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: not_served},
    )
    application.router.redirect_slashes = False  # a sender of a hook would follow none, and the answer says nothing
    guarded: ASGIApp = Browsers(Guard(application, security=security, authentication=authentication))
    return guarded if stopping is None else EndWithServer(guarded, stopping)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process, which has more to close than connections."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(application: ASGIApp, sock: socket.socket, stop: Stop) -> None:
    """Serve until the service is closed: after `stop` is asked for, new requests are told that it closes."""
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_CLOSE_S,
    )
    server = _Uvicorn(config)

    async with anyio.create_task_group() as group:

        async def end() -> None:
            await stop.service_closed.wait()
            server.should_exit = True

        group.start_soon(end, name="stop")
        await server.serve(sockets=[sock])
        stop.ask("the HTTP server ended")
