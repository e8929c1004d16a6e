"""Who may call over HTTP: hosts and origins against DNS rebinding, bearer tokens, and the end of streams with the
server."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from ipaddress import ip_address

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that anybody may ask: they tell nothing but that the process lives."""

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class BindRefused(ValueError):
    """The server will not listen there; the message says why and what to do."""


def bracketed(host: str) -> str:
    """The host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, tokens: Sequence[str]) -> None:
    """Raises BindRefused where others could reach the server without a token."""
    if not is_loopback(host) and not tokens:
        raise BindRefused(
            f"refusing to listen on {host or 'all addresses'} without authentication: "
            "anybody who reaches it could run flows. "
            "Set CONTEXTEN_FLOW_TOKENS to one or more bearer tokens, or bind to 127.0.0.1."
        )


def security_for(host: str) -> TransportSecuritySettings:
    """Which Host and Origin headers are taken: the bound address and this machine's names, on any port.

    Bound to every address, the names by which clients come are not known; there the tokens, which a browser does
    not send by
    itself, are the guard.
    """
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not bound
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = dict.fromkeys((bracketed(host), *_LOOPBACK_NAMES))
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[f"{scheme}://{form}" for scheme in ("http", "https") for n in names for form in (n, f"{n}:*")],
    )


class Guard:
    """An ASGI application behind checks of host, origin and token."""

    def __init__(self, app: ASGIApp, *, security: TransportSecuritySettings, tokens: Sequence[str]) -> None:
        self._app = app
        self._security = TransportSecurityMiddleware(security)
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = await self._security.validate_request(request, is_post=False)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if self._tokens:
            token = self._token(request)
            if token is None:
                await _unauthorized(request)(scope, receive, send)
                return
            # A session belongs to the token that began it; the SDK compares this user for it.
            client_id = hashlib.sha256(token).hexdigest()[:16]
            user = AuthenticatedUser(AccessToken(token="", client_id=client_id, scopes=[]))
            scope = {**scope, "user": user}
        await self._app(scope, receive, send)

    def _token(self, request: Request) -> bytes | None:
        """The valid token of the request. All are compared, in constant time."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        offered = given.strip().encode()
        found: bytes | None = None
        for token in self._tokens:
            if hmac.compare_digest(token, offered):
                found = token
        return found


def _unauthorized(request: Request) -> JSONResponse:
    given = "authorization" in request.headers
    challenge = 'Bearer realm="contexten-flow"' + (', error="invalid_token"' if given else "")
    message = "This bearer token is not accepted." if given else "Send a bearer token: Authorization: Bearer TOKEN."
    return JSONResponse(
        {
            "error": {
                "code": "unauthorized",
                "message": message,
                "retryable": False,
                "next": "Ask the operator for a token.",
            }
        },
        status_code=401,
        headers={"WWW-Authenticate": challenge},
    )


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
