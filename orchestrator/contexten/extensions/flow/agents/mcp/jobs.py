"""Calls that a server answers with a task of its own (the extension io.modelcontextprotocol/tasks, SEP-2663)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import anyio
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, Request, RequestParams
from pydantic import RootModel

from ...clock import Clock
from ...errors import AttemptError
from ...recovery.kinds import AGENT_FAILURE, INVALID, NETWORK
from .failures import failure_of, reason_of
from .http import KIND_KEY
from .progress import Progress

TASKS = "io.modelcontextprotocol/tasks"
_DEFAULT_POLL_S = 1.0
_MIN_POLL_S = 0.02
_MAX_POLL_S = 60.0
_POLLS_LOST = 5  # in a row, before the call fails: the task goes on without us
_FAREWELL_S = 2.0


class RawResult(RootModel[dict[str, Any]]):
    """A result as it came, whatever its kind."""


class _TaskParams(RequestParams):
    task_id: str


class _GetTask(Request[_TaskParams, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: _TaskParams
    name_param: ClassVar[str | None] = "taskId"


class _CancelTask(Request[_TaskParams, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: _TaskParams
    name_param: ClassVar[str | None] = "taskId"


async def see_through(session: ClientSession, task: dict[str, Any], progress: Progress, clock: Clock) -> dict[str, Any]:
    """Follow the task to its end; the result of the call that it stands for. Where that is not wanted any more
    (cancellation, or a question that nobody can answer) the server is told to cancel it. Raises AttemptError."""
    task_id = task.get("taskId")
    if not isinstance(task_id, str) or not task_id:
        raise AttemptError("it answered with a task without an id", kind=INVALID)
    params = _TaskParams(task_id=task_id)
    lost = 0
    try:
        while True:
            status = task.get("status")
            if isinstance(message := task.get("statusMessage"), str):
                progress.tell(f"{status}: {message}")
            if status not in ("working", "input_required"):
                return _end_of(task)
            if status == "input_required":
                raise AttemptError("it asks the user a question, which a flow cannot answer", kind=INVALID)
            await clock.sleep(_interval(task))
            try:
                task = (await session.send_request(_GetTask(params=params), RawResult)).root
                lost = 0
            except MCPError as error:
                lost += 1
                if not _is_of_the_network(error) or lost >= _POLLS_LOST:
                    raise failure_of(error, reason_of(error)) from None
    except BaseException:
        if task.get("status") in ("working", "input_required"):
            with anyio.move_on_after(_FAREWELL_S, shield=True):
                await _cancel(session, params)
        raise


async def _cancel(session: ClientSession, params: _TaskParams) -> None:
    try:
        await session.send_request(_CancelTask(params=params), RawResult)
    except Exception:  # noqa: BLE001 - a courtesy: the call has failed already
        return


def _interval(task: dict[str, Any]) -> float:
    interval = task.get("pollIntervalMs")
    if isinstance(interval, bool) or not isinstance(interval, int | float):
        return _DEFAULT_POLL_S
    return min(max(interval / 1000, _MIN_POLL_S), _MAX_POLL_S)


def _is_of_the_network(error: MCPError) -> bool:
    if error.code == CONNECTION_CLOSED:
        return True
    return error.code == INTERNAL_ERROR and isinstance(error.data, dict) and error.data.get(KIND_KEY) == NETWORK


def _end_of(task: dict[str, Any]) -> dict[str, Any]:
    status, result, error = task.get("status"), task.get("result"), task.get("error")
    if status == "completed" and isinstance(result, dict):
        return result
    if status == "failed" and isinstance(error, dict):
        code = error.get("code")
        told = MCPError(code if isinstance(code, int) else INTERNAL_ERROR, str(error.get("message", "it failed")))
        raise failure_of(told, reason_of(told))
    if status == "cancelled":
        raise AttemptError("it cancelled the task that stood for the call", kind=AGENT_FAILURE)
    raise AttemptError("it answered with a task that the protocol does not allow", kind=INVALID)
