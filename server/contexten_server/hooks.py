"""Where the world knocks: `POST /hooks/{trigger_id}`.

Callers have no token: a hook's signature vouches for them. Whoever cannot sign learns whether a hook has that address
(404) and whether the server has its secret (503), and else that the request was refused; never what a hook starts.
Nothing here looks into a request; its bytes go to the trigger as they came, since it is those that were signed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from http import HTTPStatus

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.triggers.model import HookAnswer, HookRequest
from contexten_server.http_errors import refusal, refused, unexpected
from contexten_tools import App

MAX_BODY_BYTES = 1 << 20
"""More than any vendor's event is worth; a larger body is refused."""

MAX_DROPPED_BYTES = 32 << 20
"""How much more of a refused body is read, and dropped: GitHub sends up to 25 MB."""

_BODY_S = 10.0  # vendors send at once, and give up before
_RETRY_AFTER_S = {HTTPStatus.TOO_MANY_REQUESTS: 30, HTTPStatus.SERVICE_UNAVAILABLE: 30}


def routes(app: App) -> list[Route]:
    """The one route, over the app's service."""

    async def hook(request: Request) -> Response:
        chunks = request.stream()
        try:
            with anyio.fail_after(_BODY_S):
                body = None if _is_announced_too_large(request) else await _body(chunks)
        except (ClientDisconnect, TimeoutError):
            return Response(status_code=HTTPStatus.REQUEST_TIMEOUT, headers={"Connection": "close"})
        if body is None:
            if not _waits(request):
                await _drop(chunks)
            return _too_large()
        received = HookRequest(headers=_headers(request), body=body)
        try:
            return _response(await app.service.triggers.receive(request.path_params["trigger_id"], received))
        except FlowError as error:
            return await refused(request, error)
        except Exception as error:  # noqa: BLE001 - the outermost edge: it is logged, and told to nobody
            return unexpected("a hook", error)

    return [Route("/hooks/{trigger_id}", hook, methods=["POST"], name="hook")]


def _is_announced_too_large(request: Request) -> bool:
    announced = request.headers.get("content-length", "")
    return announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES


def _waits(request: Request) -> bool:
    """Whether the sender waits for what its announcement is answered, before it sends the body."""
    return _is_announced_too_large(request) and request.headers.get("expect", "").lower() == "100-continue"


async def _body(chunks: AsyncGenerator[bytes, None]) -> bytes | None:
    """The bytes as they came; None where there are too many."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


async def _drop(chunks: AsyncGenerator[bytes, None]) -> None:
    """Read the rest of a body. A sender that writes all of it before it reads would else find its connection reset,
    and no answer: what the server closes on unread bytes is reset (RFC 9112, section 9.6)."""
    dropped = 0
    with anyio.move_on_after(_BODY_S), suppress(ClientDisconnect):
        async for chunk in chunks:
            dropped += len(chunk)
            if dropped > MAX_DROPPED_BYTES:
                return


def _headers(request: Request) -> dict[str, str]:
    """One value a name: those of a name that comes twice are joined, as RFC 9110 has it (section 5.3), so that no two
    readers take different ones."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _too_large() -> Response:
    return refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large",
        f"A hook takes at most {MAX_BODY_BYTES:,} bytes.",
        "Send less, or where to get it.",
        headers={"Connection": "close"},  # there may be more of the body
    )


def _response(answer: HookAnswer) -> Response:
    retry_after_s = _RETRY_AFTER_S.get(HTTPStatus(answer.status))
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else None
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)
