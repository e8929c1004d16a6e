"""What reaches the server over HTTP: hosts and origins against DNS rebinding, callers that are authenticated, and the
end of streams with the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import anyio
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contexten.extensions.flow.errors import Closing
from contexten.extensions.flow.outside.urls import is_loopback
from contexten.extensions.flow.settings import FlowSettings
from contexten_server.authentication import Authentication, NotAdmitted
from contexten_server.http_errors import refusal

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that anybody may ask: they tell nothing but that the process lives."""

HOOKS = "/hooks/"
"""Below it callers from anywhere vouch for themselves, by signatures."""

API = "/api/"
"""Below it errors have the API's shape, and answers and requests of browsers are held to more."""

ASSETS = "/assets/"
"""Below it, and at `/`, lies what browsers need before they can send a token: nothing secret."""

_FAREWELL_S = 1.0  # for a client to take the end of its answer
_RETRY_AFTER_S = 5  # the grace, and a start

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def route_path(scope: Scope) -> str:
    """The path below the place where the whole application is mounted."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


class BindRefused(ValueError):
    """The server will not listen there; the message says why and what to do."""


def bracketed(host: str) -> str:
    """The host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def check_bind(host: str, settings: FlowSettings) -> None:
    """Raises BindRefused where others could reach the server, themselves or through a proxy, and anybody may call."""
    if settings.tokens or settings.oauth_issuer:
        return
    if not is_loopback(host):
        where, otherwise = f"listen on {host or 'all addresses'}", "bind to 127.0.0.1"
    elif settings.public_url is not None:
        where, otherwise = f"serve {settings.public_url}", "unset CONTEXTEN_FLOW_PUBLIC_URL"
    else:
        return
    raise BindRefused(
        f"refusing to {where} without authentication: anybody who reaches it could run flows. "
        "Set CONTEXTEN_FLOW_TOKENS to one or more bearer tokens, or CONTEXTEN_FLOW_OAUTH_ISSUER and "
        f"CONTEXTEN_FLOW_OAUTH_RESOURCE to an authorization server and this server's URL, or {otherwise}."
    )


def security_for(host: str, own_urls: Sequence[str] = ()) -> TransportSecuritySettings:
    """Which Host and Origin headers are taken: the bound address and this machine's names, on any port, and those of
    the URLs by which clients know this server.

    Bound to every address, the names by which clients come are not known; there the tokens, which a browser does
    not send by itself, are the guard.
    """
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not bound
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = dict.fromkeys((bracketed(host), *_LOOPBACK_NAMES))
    hosts = [form for name in names for form in (name, f"{name}:*")]
    origins = [f"{scheme}://{form}" for scheme in ("http", "https") for form in hosts]
    for url in map(AnyHttpUrl, own_urls):  # as browsers and clients write it
        name = url.host or ""
        is_default = url.port == {"http": 80, "https": 443}[url.scheme]
        hosts += [f"{name}:{url.port}", *([name] if is_default else [])]
        origins.append(f"{url.scheme}://{name}" if is_default else f"{url.scheme}://{name}:{url.port}")
    return TransportSecuritySettings(enable_dns_rebinding_protection=True, allowed_hosts=hosts, allowed_origins=origins)


class Guard:
    """An ASGI application behind checks of host, origin and, where there is an authentication, who calls."""

    def __init__(
        self, app: ASGIApp, *, security: TransportSecuritySettings, authentication: Authentication | None
    ) -> None:
        self._app = app
        self._security = TransportSecurityMiddleware(security)
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        if scope["type"] != "http" or path in OPEN_PATHS or path.startswith(HOOKS):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        refused = await self._security.validate_request(request, is_post=False)
        if refused is None and _is_of_browsers(path) and not _is_same_origin(request):
            refused = Response("Invalid Origin header", status_code=HTTPStatus.FORBIDDEN)
        if refused is not None:
            await (_explained(refused) if path.startswith(API) else refused)(scope, receive, send)
            return
        if self._authentication is not None and not self._is_open(path):
            try:
                user = await self._authentication.admit(request)
            except NotAdmitted as stranger:
                await stranger.response(scope, receive, send)
                return
            scope = {**scope, "user": user}  # the SDK compares it for whose a session is
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return _is_page(path) or (self._authentication is not None and path in self._authentication.open_paths)


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith(ASSETS)


def _is_of_browsers(path: str) -> bool:
    """Whether no page but the dashboard asks for it. MCP's clients may be pages of this machine from any port."""
    return _is_page(path) or path.startswith(API)


def _is_same_origin(request: Request) -> bool:
    """Whether the page that asks, where one does, has come from the host that is asked: by the request's scheme, or by
    https, which may have ended at a proxy."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    return origin is None or origin in (f"{request.url.scheme}://{host}", f"https://{host}")


def _explained(refused: Response) -> Response:
    """The SDK's refusal of a host or origin, as the API words its errors."""
    status = HTTPStatus(refused.status_code)
    what = "Origin" if status is HTTPStatus.FORBIDDEN else "Host"
    return refusal(
        status,
        f"wrong_{what.lower()}",
        f"The request's {what} is not one of this server's.",
        "Use the address that the server listens on.",
    )


class EndWithServer:
    """An ASGI application whose open streams end when the server stops: to it as if their clients had left, to the
    clients as complete responses. Requests that come later are told to come again, but for questions about the process
    itself, and for hooks: what is recorded now a later server starts, and not every sender tries again."""

    def __init__(self, app: ASGIApp, stopping: anyio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        if self._stopping.is_set() and path not in OPEN_PATHS and not path.startswith(HOOKS):
            await _come_again()(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._stopping)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            # The HTTP server waits no longer, such as for the rest of a request, and would call it a defect.
            with anyio.move_on_after(_FAREWELL_S):
                if not exchange.is_begun:
                    await _come_again()(scope, receive, exchange.send)
                await exchange.finish()
        else:
            await exchange.finish()


def _come_again() -> JSONResponse:
    error = Closing("The server is stopping and takes no more work.", next="Send the request again when it is back.")
    headers = {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}
    return JSONResponse({"error": error.as_dict()}, status_code=503, headers=headers)


class _Exchange:
    """One request and its response."""

    def __init__(self, receive: Receive, send: Send, stopping: anyio.Event) -> None:
        self._receive = receive
        self._send = send
        self._stopping = stopping
        self._is_read = False
        self.is_begun = False
        self._is_complete = False

    async def receive(self) -> Message:
        if not self._is_read:
            message = await self._receive()
            self._is_read = message["type"] != "http.request" or not message.get("more_body", False)
            return message
        message = {"type": "http.disconnect"}
        if self._stopping.is_set():
            return message
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await self._stopping.wait()
                group.cancel_scope.cancel()

            group.start_soon(stop, name="stream's end")
            message = await self._receive()
            group.cancel_scope.cancel()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.is_begun:  # the SDK answers a second time where it believes that the client has left
                return
            self.is_begun = True
        elif message["type"] == "http.response.body":
            if self._is_complete:
                return
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """Complete a response that was cut off by the server's end."""
        if self.is_begun and not self._is_complete and self._stopping.is_set():
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
