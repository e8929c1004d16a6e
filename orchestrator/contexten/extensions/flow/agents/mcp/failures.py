"""What went wrong with an MCP server, in words and as a kind of failure."""

from __future__ import annotations

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    UNSUPPORTED_PROTOCOL_VERSION,
    URL_ELICITATION_REQUIRED,
)
from pydantic import ValidationError

from ...errors import AttemptError
from ...recovery.kinds import AGENT_FAILURE, INVALID, NETWORK, TIMEOUT
from .http import KIND_KEY

_MAX_REASON = 500
_KINDS = {
    CONNECTION_CLOSED: NETWORK,
    REQUEST_TIMEOUT: TIMEOUT,
    INVALID_PARAMS: INVALID,
    INVALID_REQUEST: INVALID,
    METHOD_NOT_FOUND: INVALID,
    PARSE_ERROR: INVALID,
    UNSUPPORTED_PROTOCOL_VERSION: INVALID,
    MISSING_REQUIRED_CLIENT_CAPABILITY: INVALID,
    URL_ELICITATION_REQUIRED: INVALID,
}


def failure_of(error: Exception, reason: str) -> AttemptError:
    """The failure of an attempt that met `error`, told as `reason`."""
    if isinstance(error, AttemptError):
        return error
    error = _innermost(error)
    if isinstance(error, AttemptError):
        return error
    if isinstance(error, MCPError):
        data = error.data if isinstance(error.data, dict) else {}
        details: dict[str, Any] = {name: data[name] for name in ("status", "retry_after_s") if name in data}
        kind = data.get(KIND_KEY)
        kind = kind if isinstance(kind, str) else _KINDS.get(error.code, AGENT_FAILURE)
        return AttemptError(reason, kind=kind, details={"code": error.code, **details})
    if isinstance(error, ValidationError | FileNotFoundError | PermissionError | ValueError):
        return AttemptError(reason, kind=INVALID)
    return AttemptError(reason, kind=NETWORK)


def reason_of(error: BaseException) -> str:
    """Why, in one line."""
    error = _innermost(error)
    if isinstance(error, AttemptError):
        return error.message
    if isinstance(error, FileNotFoundError):
        return f"there is no program {error.filename!r} to start"
    if isinstance(error, PermissionError):
        return f"the program {error.filename!r} may not be started"
    if isinstance(error, ValidationError):
        return "it answered what the protocol does not allow"
    if isinstance(error, MCPError) and error.code == PARSE_ERROR:
        return "its answer is no message, or larger than is taken"
    return (str(error) or type(error).__name__)[:_MAX_REASON]


def _innermost(error: BaseException) -> Any:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
