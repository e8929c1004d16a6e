"""Errors as an agent sees them: the one place that maps them to MCP.

Everything that an agent sends wrong, and everything that the library refuses, becomes a result with `isError`
and `{error: {code, message, issues?, retryable, next}}`, the same JSON as structured content and as text.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult, TextContent

from contexten.extensions.flow.errors import FlowError
from contexten_tools.text import as_sent, compact

logger = logging.getLogger(__name__)

_NEXT: dict[str, Any] = {
    "invalid_definition": "Mend workflow_def as the issues say (each `patch` is a mend that validates; paths lead into "
    "workflow_def), then call again. get_reference(topic='format') has the format.",
    "invalid_arguments": "Mend the arguments as the issues say and call again.",
    "invalid_inputs": "Mend `inputs` as the issues say and call execute_flow again; "
    "get_flow_status(flow_id=..., detail='definition') shows the flow's inputs schema.",
    "flow_not_found": {"tool": "list_flows", "arguments": {}},
    "run_not_found": {"tool": "list_flows", "arguments": {"kind": "runs"}},
    "task_not_found": "get_flow_status(run_id=..., detail='tasks') names the run's tasks.",
    "flow_exists": "Call update_flow to save it as a new version, or create_flow with another flow_id.",
    "idempotency_conflict": "Use another idempotency_key for another request.",
    "illegal_move": "get_flow_status(run_id=...) shows the run's state; choose an action that fits it.",
    "engine_unavailable": "Leave `framework` out, or name an engine that list_agents shows as available.",
    "closing": "The server is stopping: call again once it is back.",
    "store_busy": "Call again in a moment.",
    "store_full": "Free disk space on the server's machine, then call again.",
    "internal_error": "Call again once; if it fails again, tell the operator the id: the server's log has the rest.",
}


def error_result(error: Mapping[str, Any]) -> CallToolResult:
    """The result of a call that failed with `{code, message, retryable, next, issues?}`."""
    data = as_sent({"error": dict(error)})
    return CallToolResult(
        content=[TextContent(type="text", text=compact(data))], structured_content=data, is_error=True
    )


def describe(error: FlowError) -> dict[str, Any]:
    """`{code, message, retryable, next, issues?}` of an error; `next` is never missing."""
    data = error.as_dict()
    if data.get("next") is None:
        data["next"] = _NEXT.get(error.code, "get_reference(topic='troubleshooting') may help.")
    return data


def from_flow_error(error: FlowError) -> CallToolResult:
    """The result of a call that the library refused."""
    return error_result(describe(error))


def from_unexpected(tool: str, error: Exception) -> CallToolResult:
    """The result of a call that met a fault of ours: logged under an id, nothing of its text told to the client."""
    fault_id = secrets.token_hex(4)
    logger.error("Tool %s failed unexpectedly, fault id %s", tool, fault_id, exc_info=error)
    return error_result(
        {
            "code": "internal_error",
            "message": f"The server met an unexpected fault in {tool} (id {fault_id}).",
            "retryable": False,
            "next": _NEXT["internal_error"],
        }
    )
