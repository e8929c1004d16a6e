"""Errors as HTTP shows them: the one place that maps them to a status and to `{error: {code, message, ...}}`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contexten.extensions.flow.errors import (
    EngineUnavailable,
    FlowError,
    FlowExists,
    IdempotencyConflict,
    IllegalMove,
    NotFound,
    StoreError,
    TooManyDeliveries,
)
from contexten_tools.failures import describe
from contexten_tools.text import as_sent

logger = logging.getLogger(__name__)


class ReadOnly(FlowError):
    """The server was started with --read-only."""

    code = "read_only"


STATUSES: tuple[tuple[type[FlowError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (FlowExists, HTTPStatus.CONFLICT),
    (IdempotencyConflict, HTTPStatus.CONFLICT),
    (IllegalMove, HTTPStatus.CONFLICT),
    (EngineUnavailable, HTTPStatus.CONFLICT),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (TooManyDeliveries, HTTPStatus.TOO_MANY_REQUESTS),
    (ReadOnly, HTTPStatus.FORBIDDEN),
)
"""By the family of the error; what is in none of them may be tried again later, or was wrong in what was sent."""

_RETRY_AFTER_S = 1
_MAX_PATH = 200  # as much of it as an error shows


def refusal(
    status: HTTPStatus, code: str, message: str, todo: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a request that is refused before the library sees it."""
    error = {
        "code": code,
        "message": message,
        "retryable": status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS),
        "next": todo,
    }
    return JSONResponse({"error": as_sent(error)}, status_code=status, headers=headers)


async def refused(request: Request, error: FlowError) -> Response:  # noqa: ARG001 - the signature of handlers
    """The answer to a request that the library refused."""
    other = HTTPStatus.SERVICE_UNAVAILABLE if error.retryable else HTTPStatus.UNPROCESSABLE_ENTITY
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), other)
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if error.retryable else None
    return JSONResponse({"error": as_sent(describe(error))}, status_code=status, headers=headers)


def unexpected(operation: str, error: Exception) -> Response:
    """The answer to a request that met a fault of ours: logged under an id, nothing of its text told."""
    fault_id = secrets.token_hex(4)
    logger.error("%s failed unexpectedly, fault id %s", operation, fault_id, exc_info=error)
    return refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        f"The server met an unexpected fault in {operation} (id {fault_id}).",
        "Try again once; if it fails again, tell the operator the id: the server's log has the rest.",
    )


async def not_served(request: Request, error: Exception) -> Response:
    """The answer where there is no such path or method, or where the body could not be read: to HTTPException."""
    if not isinstance(error, HTTPException):
        raise TypeError from error
    status = HTTPStatus(error.status_code)
    path = request.url.path[:_MAX_PATH]
    code, message, todo = {
        HTTPStatus.NOT_FOUND: (
            "not_found",
            f"There is no {path}.",
            "GET /api/openapi.json lists all paths.",
        ),
        HTTPStatus.METHOD_NOT_ALLOWED: (
            "method_not_allowed",
            f"{path} does not take {request.method}.",
            "The header Allow and /api/openapi.json say what it takes.",
        ),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("too_large", str(error.detail), "Send less at once."),
    }.get(status, ("malformed_json", str(error.detail), "Send a JSON object."))
    return refusal(status, code, message, todo, headers=error.headers)
