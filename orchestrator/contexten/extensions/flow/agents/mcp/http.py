"""Streamable HTTP to an MCP server, with what the protocol library's transport leaves out.

A failed connection and an error status become the answer of the request that met them, with the kind of failure, rather
than the end of the session or an answer without a reason. Headers go to the server's own origin only, and what comes
back is bounded.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, PARSE_ERROR
from typing_extensions import override

from ...clock import Clock
from ...outside.retry_after import retry_after
from ...recovery.kinds import NETWORK, TIMEOUT, kind_of_status
from .target import HttpTarget

KIND_KEY = "contexten.kind"
"""In the data of a JSON-RPC error that is ours: the kind of failure."""
_CONNECT_S = 20.0
_SESSION_HEADER = "mcp-session-id"
_EVENT_STREAM = "text/event-stream"
_MAX_EVENT_BYTES = 1_048_576 - 1024  # httpx2 refuses longer ones, and the protocol library tells nobody why
_CUT_OFF = json.dumps(
    {"jsonrpc": "2.0", "id": None, "error": {"code": PARSE_ERROR, "message": "too large"}}
).encode()  # what the request is answered with whose answer is cut off
_JSON = "application/json"


@asynccontextmanager
async def http_transport(
    target: HttpTarget, *, max_bytes: int, clock: Clock, on_end: Callable[[str], None]
) -> AsyncIterator[Any]:
    """The streams of a session. `on_end` is told where the server knows the session no more. Raises AttemptError where
    a secret for it has no value."""
    client = _Client(target, max_bytes, clock, on_end)
    async with client, streamable_http_client(target.url, http_client=client) as streams:
        yield streams


class _Misdirected(httpx2.TransportError):
    """The server redirects to another one."""


class _TooLarge(httpx2.StreamError):
    """More came than is taken."""


class _Client(httpx2.AsyncClient):
    """An HTTP client whose failures are JSON-RPC errors."""

    def __init__(self, target: HttpTarget, max_bytes: int, clock: Clock, on_end: Callable[[str], None]) -> None:
        super().__init__(
            headers={**target.headers(), "accept-encoding": "identity"},
            timeout=httpx2.Timeout(_CONNECT_S, read=None),  # how long a call may take is the caller's to say
            follow_redirects=True,
            event_hooks={"request": [self._check_origin]},
        )
        self._origin = _origin(httpx2.URL(target.url))
        self._max_bytes = max_bytes
        self._clock = clock
        self._on_end = on_end

    async def _check_origin(self, request: httpx2.Request) -> None:
        if _origin(request.url) != self._origin:
            scheme, host, port = _origin(request.url)
            raise _Misdirected(f"it redirects to {scheme}://{host}:{port}, where its headers must not go")

    @override
    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await super().send(request, **options)
        except httpx2.TransportError as error:
            if request.method != "POST":
                raise
            kind = TIMEOUT if isinstance(error, httpx2.TimeoutException) else NETWORK
            return _answer(request, 502, CONNECTION_CLOSED, f"{_said(error)}", {KIND_KEY: kind})
        if response.status_code >= 400:
            return await self._failure(request, response)
        response.stream = _Bounded(response.stream, self._max_bytes, response.headers.get("content-type", ""))
        return response

    async def _failure(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        status = response.status_code
        if status in (400, 404) and _SESSION_HEADER in request.headers:
            self._on_end("it knows the session no more")
        response.stream = _Bounded(response.stream, self._max_bytes, _JSON)
        if request.method != "POST" or status == 404 or await _tells(response):
            return response  # the protocol library knows what these mean
        await response.aclose()
        data: dict[str, Any] = {KIND_KEY: kind_of_status(status), "status": status}
        wait_s = retry_after(response.headers.get("retry-after"), self._clock)
        if wait_s is not None:
            data["retry_after_s"] = wait_s
        return _answer(request, status, INTERNAL_ERROR, f"it answered {status} {response.reason_phrase}".strip(), data)


async def _tells(response: httpx2.Response) -> bool:
    """Whether the body is a JSON-RPC message."""
    if not response.headers.get("content-type", "").lower().startswith(_JSON):
        return False
    try:
        content = json.loads(await response.aread())
    except (ValueError, RecursionError, httpx2.HTTPError, _TooLarge):
        return False
    return isinstance(content, dict) and "jsonrpc" in content


class _Bounded(httpx2.AsyncByteStream):
    """A body, or an event of an event stream, of a bounded size."""

    def __init__(self, inner: Any, max_bytes: int, content_type: str) -> None:
        self._inner = inner
        self._has_events = content_type.lower().startswith(_EVENT_STREAM)
        self._max_bytes = min(max_bytes, _MAX_EVENT_BYTES) if self._has_events else max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._inner:
            size += len(part)
            if self._has_events:
                end = max(part.rfind(b"\n\n"), part.rfind(b"\n\r\n"))
                size = size if end < 0 else len(part) - end
            if size > self._max_bytes:
                if self._has_events:
                    yield b"\n\nevent: message\ndata: " + _CUT_OFF + b"\n\n"
                    return
                raise _TooLarge(f"more than {self._max_bytes:,} bytes")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


def _answer(request: httpx2.Request, status: int, code: int, message: str, data: dict[str, Any]) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message, "data": data}}
    return httpx2.Response(status, content=json.dumps(body), headers={"content-type": _JSON}, request=request)


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, _Misdirected) else f"it cannot be reached: {text}"
