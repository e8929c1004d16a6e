"""An MCP server with tools that tests call: over standard input and output when it is run, over HTTP within a test."""

from __future__ import annotations

import os
import sys
from typing import Any

import anyio
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged
from mcp_types import METHOD_NOT_FOUND, RequestParams, TextContent
from pydantic import BaseModel

PIXEL = b"\x89PNG fake"


class Sum(BaseModel):
    total: int


class Events:
    """What happened in the server, for the test that shares its process."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.began = anyio.Event()
        self.cancelled = anyio.Event()
        self.may_end = anyio.Event()


class TaskParams(RequestParams):
    task_id: str


class Jobs(Extension):
    """Calls of the tool `job` become tasks (SEP-2663) that work for as many polls as they are told."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, events: Events) -> None:
        self._events = events
        self._polls: dict[str, int] = {}
        self._how: dict[str, str] = {}

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self.get),
            MethodBinding("tasks/cancel", TaskParams, self.cancel),
        ]

    async def intercept_tool_call(self, params: Any, ctx: Any, call_next: Any) -> Any:
        if params.name == "ask":
            return {"resultType": "input_required", "inputRequests": {}, "requestState": "x"}
        if params.name != "job" or ctx.protocol_version < "2026":
            return await call_next(ctx)
        task_id = f"job-{len(self._polls)}"
        self._polls[task_id] = params.arguments.get("polls", 2)
        self._how[task_id] = params.arguments.get("ends", "completed")
        return {"resultType": "task", **self._task(task_id, "working")}

    def _task(self, task_id: str, status: str) -> dict[str, Any]:
        at = "2026-01-01T00:00:00Z"
        left = self._polls[task_id]
        return {
            "taskId": task_id,
            "status": status,
            "statusMessage": f"{left} to go",
            "createdAt": at,
            "lastUpdatedAt": at,
            "ttlMs": None,
            "pollIntervalMs": 1,
        }

    async def get(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        task_id = params.task_id
        self._events.began.set()
        if self._polls[task_id] > 0:
            self._polls[task_id] -= 1
            return {"resultType": "complete", **self._task(task_id, "working")}
        how = self._how[task_id]
        ends: dict[str, dict[str, Any]] = {
            "completed": {"result": {"content": [], "structuredContent": {"did": task_id}, "resultType": "complete"}},
            "failed": {"error": {"code": -32603, "message": "the job broke"}},
            "input_required": {"inputRequests": {}},
        }
        return {"resultType": "complete", **self._task(task_id, how), **ends.get(how, {})}

    async def cancel(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        self._events.history.append(f"cancelled {params.task_id}")
        self._events.cancelled.set()
        return {"resultType": "complete"}


def build_server(events: Events, *, is_legacy: bool = False) -> MCPServer:  # noqa: C901 - many small tools
    """The server. `is_legacy`: it does not know the protocol of 2026."""
    bus = InMemorySubscriptionBus()
    server = MCPServer("example", version="1.2", subscriptions=bus, extensions=[Jobs(events)])

    @server.tool()
    def add(a: int, b: int = 1) -> Sum:
        """Adds two numbers."""
        events.history.append("add")
        return Sum(total=a + b)

    @server.tool(structured_output=False)
    def say(text: str) -> str:
        """Says what it is told."""
        return text

    @server.tool(structured_output=False)
    def show() -> list[Any]:
        """A word and a picture."""
        return [TextContent(text="see:"), Image(data=PIXEL, format="png")]

    @server.tool()
    def fail(why: str) -> str:
        """Fails."""
        events.history.append("fail")
        raise ToolError(why)

    @server.tool()
    async def count(to: int, ctx: Context[Any]) -> int:
        """Counts, and tells its progress."""
        for number in range(1, to + 1):
            await ctx.report_progress(number, to, f"at {number}")
        return to

    @server.tool()
    async def hold() -> str:
        """Ends when the test lets it, or when it is cancelled."""
        events.began.set()
        try:
            await events.may_end.wait()
        except BaseException:
            events.history.append("cancelled hold")
            events.cancelled.set()
            raise
        return "held"

    @server.tool()
    def history() -> list[str]:
        """What happened before."""
        return events.history

    @server.tool(structured_output=False)
    def mirrored(variable: str) -> str:
        """A variable of the environment, backwards: no mask knows it."""
        return os.environ.get(variable, "")[::-1]

    @server.tool()
    def die() -> str:
        """Ends the whole server."""
        sys.stderr.write("out of luck\n")
        sys.stderr.flush()
        os._exit(3)

    @server.tool()
    async def grow(name: str, ctx: Context[Any]) -> str:
        """Adds a tool, and says so to clients of both eras."""
        server.add_tool(lambda: f"I am {name}", name=name, structured_output=False)
        await ctx.session.send_tool_list_changed()
        await bus.publish(ToolsListChanged())
        return name

    @server.tool(structured_output=False)
    def job(polls: int = 2, ends: str = "completed") -> str:
        """Becomes a task where the client can follow one."""
        return "at once"

    @server.tool(structured_output=False)
    def ask() -> str:
        """Would ask the user."""
        return ""

    if is_legacy:
        server.middleware.append(_refuse_discovery)
    return server


async def _refuse_discovery(ctx: Any, call_next: Any) -> Any:
    if ctx.method == "server/discover":
        raise MCPError(METHOD_NOT_FOUND, "Method not found")
    return await call_next(ctx)


async def _serve_legacy() -> None:
    server = build_server(Events())._lowlevel_server
    async with stdio_server() as (read, write), server.lifespan(server) as state:
        await serve_loop(server, read, write, lifespan_state=state)


if __name__ == "__main__":
    if "--legacy" in sys.argv:
        anyio.run(_serve_legacy)
    else:
        build_server(Events()).run("stdio")
