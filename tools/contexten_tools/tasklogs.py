"""What tasks log, told to clients that asked for logs.

On a connection of 2025-11-25 and earlier they ask by `logging/setLevel`, on 2026-07-28 by a request's `_meta`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, get_args

import anyio
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp_types import (
    LOG_LEVEL_META_KEY,
    EmptyResult,
    LoggingLevel,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SetLevelRequestParams,
)

from contexten.extensions.flow.views import EventView

logger = logging.getLogger(__name__)

_LEVELS: tuple[LoggingLevel, ...] = get_args(LoggingLevel)  # from debug to emergency
_STATE = "contexten_tools.log_level"


def _connection(ctx: ServerRequestContext[Any, Any]) -> Connection:
    return ctx.session._connection  # noqa: SLF001 - a session is one request's; what a client asked for outlives it


async def set_level(ctx: ServerRequestContext[Any, Any], params: SetLevelRequestParams) -> EmptyResult:
    """Answer logging/setLevel: from now on this client is told of what tasks log at that level and above."""
    _connection(ctx).state[_STATE] = params.level
    return EmptyResult()


def _wanted(ctx: ServerRequestContext[Any, Any]) -> frozenset[str]:
    level = (ctx.meta or {}).get(LOG_LEVEL_META_KEY) or _connection(ctx).state.get(_STATE)
    return frozenset(_LEVELS[_LEVELS.index(level) :]) if level in _LEVELS else frozenset()


async def tell_task_logs(ctx: ServerRequestContext[Any, Any], run_id: str, events: Sequence[EventView]) -> None:
    """Send the client what tasks logged, as far as it asked for it. Never raises: a client that left is no error."""
    levels = _wanted(ctx)
    for event in events:
        if event.type != "task.log" or not levels:
            continue
        said = event.details or {}
        level = said.get("level", "info")
        if level not in levels:
            continue
        notification = LoggingMessageNotification(
            params=LoggingMessageNotificationParams(
                level=level,
                logger="contexten-flow.tasks",
                data={"run_id": run_id, "task": event.task, "message": said.get("message", ""), "at": event.at},
            )
        )
        try:
            await ctx.session.send_notification(notification, related_request_id=ctx.request_id)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            logger.debug("a task's log was not sent: the client is gone", extra={"run_id": run_id})
            return
