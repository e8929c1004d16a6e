"""One call as a tool sees it: who asks, and how to tell them of progress."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.mcpserver import Context

from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.views import RunView
from contexten_tools.tasklogs import tell_task_logs

logger = logging.getLogger(__name__)

_MAX_NAME = 80  # a client's name is its own claim; the audit trail keeps what fits a line

_STALLED_S = 2.0


def _client_name(context: Context[Any, Any]) -> str:
    params = context.request_context.session.client_params  # of `initialize`, or of this request's `_meta`
    name = params.client_info.name if params is not None else ""
    return "".join(letter for letter in name if letter.isprintable())[:_MAX_NAME] or "unknown"


def _subject(context: Context[Any, Any]) -> str:
    """Who the request's access token speaks for; empty without one."""
    user = getattr(context.request_context.request, "scope", {}).get("user")
    subject = getattr(getattr(user, "access_token", None), "subject", None) or ""
    return "".join(letter for letter in subject if letter.isprintable())


def _transport(context: Context[Any, Any], default: str) -> str:
    url = getattr(context.request_context.request, "url", None)
    if url is None:
        return default
    return "sse" if str(url.path).startswith("/messages") else "http"


@dataclass(slots=True)
class Call:
    """A call under way."""

    actor: Actor
    context: Context[Any, Any] | None = None
    _last: float = field(default=-1.0)

    @classmethod
    def of(cls, tool: str, transport: str, context: Context[Any, Any] | None) -> Call:
        """The call that `context` belongs to; without one (a call in this process) nobody is told of progress."""
        try:
            request = context.request_context if context is not None else None
        except ValueError:  # a context made outside of a request
            request = None
        if context is None or request is None:
            return cls(actor=Actor(client="unknown", transport=transport, tool=tool))
        return cls(
            actor=Actor(
                subject=_subject(context),
                client=_client_name(context),
                transport=_transport(context, transport),
                tool=tool,
            ),
            context=context,
        )

    async def tell_logs(self, run: RunView) -> None:
        """Send the client what tasks logged, of the events that `run` carries, as far as it asked for logs."""
        if self.context is not None and run.events:
            with anyio.move_on_after(_STALLED_S):
                await tell_task_logs(self.context.request_context, run.run_id, run.events)

    async def report(self, run: RunView) -> None:
        """Tell the client of a change, where it gave a progress token. Never raises: a client that left is no error."""
        if self.context is None:
            return
        done, total = float(run.progress.completed), float(run.progress.total)
        # Each value must be greater than the last: changes between two completions share the space between them.
        value = done if done > self._last else self._last + (done + 1 - self._last) / 8
        if value <= self._last:
            return
        self._last = value
        active = f", now {', '.join(run.active[:5])}" if run.active else ""
        total_tasks = f"{run.progress.total} task{'' if run.progress.total == 1 else 's'}"
        message = f"{run.state}: {run.progress.completed} of {total_tasks}{active}"
        try:
            with anyio.move_on_after(_STALLED_S):  # a client that stopped reading must not hold the call
                await self.context.report_progress(value, max(total, value), message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            logger.debug("progress not sent: the client is gone", extra={"run_id": run.run_id})
