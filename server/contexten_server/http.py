"""MCP over HTTP: one application with streamable HTTP at /mcp, SSE at /sse and /messages/, and the process's own
pages."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from contexten.extensions.flow.errors import FlowError
from contexten_server.access import BindRefused, EndWithServer, Guard, bracketed, security_for
from contexten_server.assembly import program_version
from contexten_server.authentication import Authentication
from contexten_server.stopping import Stop
from contexten_tools import App, ToolServer

logger = logging.getLogger(__name__)

_READY_S = 2.0
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


def http_app(server: ToolServer, app: App, *, host: str, stopping: anyio.Event | None = None) -> ASGIApp:
    """The whole HTTP application, guarded. `stopping` ends its open streams when set."""
    security = security_for(host, app.settings.oauth_resource)
    authentication = Authentication.of(app.settings)
    streamable = server.streamable_http_app(transport_security=security, host=host)
    server.session_manager.session_idle_timeout = _IDLE_SESSION_S

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - a route's signature
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:  # noqa: ARG001 - a route's signature
        try:
            with anyio.fail_after(_READY_S):
                await app.service.scheduler()
        except (FlowError, TimeoutError) as error:
            code = error.code if isinstance(error, FlowError) else "timeout"
            return JSONResponse({"ready": False, "code": code}, status_code=503)
        return JSONResponse({"ready": True})

    async def index(request: Request) -> Response:  # noqa: ARG001 - a route's signature
        return PlainTextResponse(
            f"Contexten Flow {program_version()}\n\n"
            "/mcp       MCP over streamable HTTP (2026-07-28, 2025-11-25 and earlier)\n"
            "/sse       MCP over SSE\n"
            "/healthz   the process lives\n"
            "/readyz    the database can be used\n"
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    application = Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *(authentication.routes if authentication is not None else ()),
            *streamable.routes,
            *server.sse_app(transport_security=security, host=host).routes,
        ],
        lifespan=lifespan,
    )
    guarded: ASGIApp = Guard(application, security=security, authentication=authentication)
    return guarded if stopping is None else EndWithServer(guarded, stopping)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process, which has more to close than connections."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(application: ASGIApp, sock: socket.socket, stop: Stop) -> None:
    """Serve until `stop` is asked for."""
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
            await stop.wait()
            server.should_exit = True

        group.start_soon(end, name="stop")
        await server.serve(sockets=[sock])
        stop.ask("the HTTP server ended")
