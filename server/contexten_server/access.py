"""What reaches the server over HTTP: hosts and origins against DNS rebinding, callers that are authenticated, and the
end of streams with the server."""

from __future__ import annotations

import anyio
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contexten.extensions.flow.addresses import is_loopback
from contexten.extensions.flow.settings import FlowSettings
from contexten_server.authentication import Authentication, NotAdmitted

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that anybody may ask: they tell nothing but that the process lives."""

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class BindRefused(ValueError):
    """The server will not listen there; the message says why and what to do."""


def bracketed(host: str) -> str:
    """The host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def check_bind(host: str, settings: FlowSettings) -> None:
    """Raises BindRefused where others could reach the server and anybody may call."""
    if not is_loopback(host) and not settings.tokens and not settings.oauth_issuer:
        raise BindRefused(
            f"refusing to listen on {host or 'all addresses'} without authentication: "
            "anybody who reaches it could run flows. "
            "Set CONTEXTEN_FLOW_TOKENS to one or more bearer tokens, or CONTEXTEN_FLOW_OAUTH_ISSUER and "
            "CONTEXTEN_FLOW_OAUTH_RESOURCE to an authorization server and this server's URL, or bind to 127.0.0.1."
        )


def security_for(host: str, resource: str | None = None) -> TransportSecuritySettings:
    """Which Host and Origin headers are taken: the bound address and this machine's names, on any port, and those of
    `resource`, the URL by which clients know this server, where it is given.

    Bound to every address, the names by which clients come are not known; there the tokens, which a browser does
    not send by itself, are the guard.
    """
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not bound
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = dict.fromkeys((bracketed(host), *_LOOPBACK_NAMES))
    hosts = [form for name in names for form in (name, f"{name}:*")]
    origins = [f"{scheme}://{form}" for scheme in ("http", "https") for form in hosts]
    if resource:
        url = AnyHttpUrl(resource)  # as browsers and clients write it
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
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = await self._security.validate_request(request, is_post=False)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if self._authentication is not None and scope["path"] not in self._authentication.open_paths:
            try:
                user = await self._authentication.admit(request)
            except NotAdmitted as refused:
                await refused.response(scope, receive, send)
                return
            scope = {**scope, "user": user}  # the SDK compares it for whose a session is
        await self._app(scope, receive, send)


class EndWithServer:
    """An ASGI application whose open streams end when the server stops: to it as if their clients had left, to the
    clients as complete responses."""

    def __init__(self, app: ASGIApp, stopping: anyio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._stopping)
        await self._app(scope, exchange.receive, exchange.send)
        await exchange.finish()


class _Exchange:
    """One request and its response."""

    def __init__(self, receive: Receive, send: Send, stopping: anyio.Event) -> None:
        self._receive = receive
        self._send = send
        self._stopping = stopping
        self._is_read = False
        self._is_begun = False
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
            if self._is_begun:  # the SDK answers a second time where it believes that the client has left
                return
            self._is_begun = True
        elif message["type"] == "http.response.body":
            if self._is_complete:
                return
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """Complete a response that was cut off by the server's end."""
        if self._is_begun and not self._is_complete and self._stopping.is_set():
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
