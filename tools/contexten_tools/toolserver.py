"""An MCPServer whose tools check their own arguments and answer errors that an agent can act on.

The SDK reports wrong arguments as prose and drops unknown ones in silence; here both, and unknown tools, are
results with structured errors. Tools that extensions add to the server in the SDK's way keep working beside these.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, InputRequiredResult, SetLevelRequestParams, TextContent, ToolAnnotations
from mcp_types import Tool as MCPTool

from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.nearest import nearest_name
from contexten_tools.arguments import MALFORMED, Arguments, input_schema, parse
from contexten_tools.calls import Call
from contexten_tools.failures import error_result, from_flow_error, from_unexpected
from contexten_tools.tasklogs import set_level
from contexten_tools.text import compact

Run = Callable[[Any, Call], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTool:
    """One tool: what clients are told of it, and the function that answers a call."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    answer: Callable[[], dict[str, Any]]
    """Makes the outputSchema when tools are first listed."""
    annotations: ToolAnnotations
    run: Run
    """Called with the arguments and the call; answers JSON data. Raises FlowError for what the caller can mend."""
    writes: bool = False
    """It changes something: hidden from a read-only server."""


class ToolServer(MCPServer[Any]):
    """An MCPServer with `FlowTool`s, listed in the order in which they were added."""

    def __init__(self, *args: Any, transport: str = "memory", read_only: bool = False, **kwargs: Any) -> None:
        """`transport` is what the audit trail says of calls that did not come over HTTP. Of a `read_only` server the
        tools that write are not listed, and say so when called. The rest is MCPServer's."""
        self._flow_tools: dict[str, FlowTool] = {}
        self._hidden: set[str] = set()
        self._elsewhere: dict[str, tuple[str, str]] = {}
        self._read_only = read_only
        self._listed: list[MCPTool] | None = None
        self._transport = transport
        self._pages: dict[str, str] = {}
        self.on_listed: Callable[[], None] | None = None
        """Called when the tools have been listed."""
        super().__init__(*args, **kwargs)
        self.middleware.append(_admit_arguments)
        self._lowlevel_server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)

    def add_flow_tool(self, tool: FlowTool) -> None:
        """Offer a tool, or hide it where it writes and the server is read-only. Raises ValueError where its name is
        taken."""
        if tool.name in self._flow_tools:
            raise ValueError(f"a tool named {tool.name} is offered already")
        if self._read_only and tool.writes:
            self._hidden.add(tool.name)
            return
        self._flow_tools[tool.name] = tool
        self._listed = None

    def know_of(self, tools: Sequence[str], *, toolset: str, start: str) -> None:
        """Tell who calls one of those tools that it belongs to a toolset that is not offered; `start` are the options
        of the command line with which it would be."""
        self._elsewhere |= dict.fromkeys(tools, (toolset, start))

    def show_by(self, uri: str, *tools: str) -> None:
        """Tell hosts with MCP Apps to show the results of those tools by the page at that `ui://` URI."""
        self._pages |= dict.fromkeys(tools, uri)
        self._listed = None

    async def list_tools(self) -> list[MCPTool]:
        if self._listed is None:
            self._listed = [
                MCPTool(
                    name=tool.name,
                    title=tool.title,
                    description=tool.description,
                    input_schema=input_schema(tool.arguments),
                    output_schema=tool.answer(),
                    annotations=tool.annotations,
                    meta={"ui": {"resourceUri": self._pages[tool.name]}} if tool.name in self._pages else None,
                )
                for tool in self._flow_tools.values()
            ]
        listed = [*self._listed, *await super().list_tools()]
        if self.on_listed is not None:
            self.on_listed()
        return listed

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Answer a call. What went wrong is in the result, as an error of ours; MCPError alone is raised."""
        tool = self._flow_tools.get(name)
        if tool is None:
            others = {other.name for other in await super().list_tools()}
            if name in others:
                return await super().call_tool(name, arguments, context)
            return self._refuse(name, others)
        try:
            try:
                given = parse(name, tool.arguments, arguments)
                data = await tool.run(given, Call.of(name, self._transport, context))
            except FlowError as error:
                return from_flow_error(error)
            text = compact(data)
            text.encode()  # raises where a lone surrogate would break the connection's own writer
            return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=data)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost edge of a call: logged there, its text kept here
            return from_unexpected(name, error)

    def _refuse(self, name: str, others: set[str]) -> CallToolResult:
        if name in self._hidden:
            return error_result(
                {
                    "code": "read_only",
                    "message": f"{name} changes things, and this server was started with --read-only.",
                    "retryable": False,
                    "next": "Use the tools that read, or ask the operator to start the server without --read-only.",
                }
            )
        offered = [*self._flow_tools, *sorted(others)]
        near = nearest_name(name.lower(), [*offered, *self._elsewhere], likeness=0.5)
        if near in self._elsewhere:
            return self._refuse_elsewhere(name, near, *self._elsewhere[near])
        message = f"There is no tool {name[:80]!r}." + (f" Did you mean {near!r}?" if near else "")
        issue: dict[str, Any] = {"path": "", "code": "unknown_tool", "message": message, "expected": offered}
        if near:
            issue["suggestion"] = near
        return error_result(
            {
                "code": "unknown_tool",
                "message": message,
                "retryable": False,
                "next": f"Call {near}." if near else "Call one of: " + ", ".join(offered) + ".",
                "issues": [issue],
            }
        )

    def _refuse_elsewhere(self, name: str, near: str, toolset: str, start: str) -> CallToolResult:
        message = f"{near} belongs to the toolset `{toolset}`, which this server does not offer."
        if near != name:
            message = f"There is no tool {name[:80]!r}. {message}"
        return error_result(
            {
                "code": "unknown_tool",
                "message": message,
                "retryable": False,
                "next": f"Ask the operator to start the server with {start}.",
                "issues": [{"path": "", "code": "toolset_not_offered", "message": message, "got": name[:80]}],
            }
        )


async def _admit_arguments(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Let a tool call whose arguments are no JSON object through to where it is answered as an error of the call.

    Arguments given as the text of a JSON object, as some models do, count as that object.
    """
    params = ctx.params
    if ctx.method != "tools/call" or params is None:
        return await call_next(ctx)
    arguments = params.get("arguments")
    if arguments is None or isinstance(arguments, Mapping):
        return await call_next(ctx)
    admitted: dict[str, Any] = {MALFORMED: arguments}
    if isinstance(arguments, str):
        try:
            decoded = json.loads(arguments)
        except (ValueError, RecursionError):
            decoded = None
        if isinstance(decoded, dict):
            admitted = decoded
    return await call_next(dataclasses.replace(ctx, params={**params, "arguments": admitted}))
