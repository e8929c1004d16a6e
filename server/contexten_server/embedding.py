"""The HTTP application of the server as part of another program: served by whatever serves that program.

`Embedded` is an ASGI application. Whoever mounts it need not run its lifespan (Starlette runs none of mounted
applications): it opens with its first request. All that it needs lives in a task of its own, so that it may be opened
by one request and closed by another task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.outside.urls import is_loopback
from contexten_resources import LiveUpdates
from contexten_server.access import HOOKS, OPEN_PATHS, route_path
from contexten_server.assembly import build_server
from contexten_server.http import http_app
from contexten_server.http_errors import refusal, refused
from contexten_tools import App, resolve_toolsets

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.settings import FlowSettings

logger = logging.getLogger(__name__)

_HERE = "127.0.0.1"
_EVERYWHERE = ""


class Embedded:
    """Dashboard, API, hooks and MCP over a service that another opens. Belongs to one event loop at a time."""

    def __init__(
        self,
        settings: FlowSettings,
        service: Callable[[], Awaitable[FlowService]],
        *,
        read_only: bool = False,
        toolsets: Sequence[str] | str | None = None,
    ) -> None:
        """`service` answers the open service, whose owner closes it after `aclose`. Raises UnknownToolset."""
        self._settings = settings
        self._service = service
        self._read_only = read_only
        self._toolsets = resolve_toolsets(toolsets)
        self._has_authentication = bool(settings.tokens or settings.oauth_issuer)
        self._life: _Life | None = None

    async def start(self) -> None:
        """Be ready for requests. Idempotent. Raises what opening the service raises."""
        await self._opened()

    async def aclose(self) -> None:
        """End open streams, tell who comes now to come again, and close; possible to start again."""
        life, self._life = self._life, None
        if life is not None:
            await life.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._has_authentication and not _may_come(scope):
            await _from_elsewhere()(scope, receive, send)
            return
        try:
            application = await self._opened()
        except FlowError as error:
            await (await refused(Request(scope), error))(scope, receive, send)
            return
        await application(scope, receive, send)

    async def _opened(self) -> ASGIApp:
        life = self._life
        if life is None or life.is_over:
            life = self._life = _Life(self._live)
        try:
            await asyncio.shield(life.opened)
        except Exception:
            if self._life is life:  # the next request tries again
                self._life = None
            raise
        return life.application

    async def _live(self, life: _Life) -> None:
        async with LiveUpdates() as updates:
            service = await self._service()
            app = App(
                service=service,
                settings=self._settings,
                transport="http",
                read_only=self._read_only,
                toolsets=self._toolsets,
            )
            with _logging_left_alone():
                server = build_server(app, updates=updates)
            await updates.start(service)
            host = _EVERYWHERE if self._has_authentication else _HERE
            with contextlib.ExitStack() as closing:
                life.application = http_app(server, app, host=host, stopping=life.stopping, closing=closing)
                async with server.session_manager.run():  # all that the application's lifespan is
                    life.opened.set_result(None)
                    await life.stopping.wait()
                    updates.close_streams()


class _Life:
    """One time from opening to closing, in a task of its own."""

    application: ASGIApp

    def __init__(self, live: Callable[[_Life], Awaitable[None]]) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopping = anyio.Event()
        self._task = asyncio.create_task(self._run(live), name="contexten-flow server")

    async def _run(self, live: Callable[[_Life], Awaitable[None]]) -> None:
        try:
            await live(self)
        except BaseException as error:
            if self.opened.done():
                trace = error if isinstance(error, Exception) else None  # a program that ends cancels it
                logger.warning("The server within this program ended; its next request starts it again", exc_info=trace)
                raise
            self.opened.set_exception(_only(error))
            if not isinstance(error, Exception):
                raise

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def close(self) -> None:
        self.stopping.set()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


def _only(error: BaseException) -> BaseException:
    """The one error of a group of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@contextlib.contextmanager
def _logging_left_alone() -> Iterator[None]:
    """The SDK sets logging up where nobody has. That is the program's business."""
    root, nobody = logging.getLogger(), logging.NullHandler()
    root.addHandler(nobody)
    try:
        yield
    finally:
        root.removeHandler(nobody)


def _may_come(scope: Scope) -> bool:
    """Whether the request comes from this machine, or goes where callers from anywhere vouch for themselves. One whose
    caller is not known, as over a Unix socket, may come from anywhere through a proxy."""
    path, client = route_path(scope), scope.get("client")
    return path.startswith(HOOKS) or path in OPEN_PATHS or (client is not None and is_loopback(client[0]))


def _from_elsewhere() -> Response:
    return refusal(
        HTTPStatus.FORBIDDEN,
        "authentication_needed",
        "Without authentication only this machine is answered.",
        "Set CONTEXTEN_FLOW_TOKENS or an authorization server where the program starts.",
    )
