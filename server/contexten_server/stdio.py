"""MCP over standard input and output."""

from __future__ import annotations

from typing import Any, cast

import anyio
from mcp.server.stdio import stdio_server

from contexten_server.standard_streams import Wire, WireLines, WireWriter
from contexten_server.stdio_refusals import messages
from contexten_server.stopping import Stop
from contexten_tools import ToolServer


async def serve_stdio(server: ToolServer, wire: Wire, stop: Stop) -> None:
    """Serve one client until its input ends or `stop` is asked for; asks for it at the end."""
    protocol = server._lowlevel_server  # noqa: SLF001 - run_stdio_async takes no streams, and these are not the process's own
    writer = WireWriter(wire.out_fd)
    lines = messages(aiter(WireLines(wire.in_fd)), writer.write)

    async with anyio.create_task_group() as group:

        async def watch(event: Any, why: str) -> None:
            await event.wait()
            stop.ask(why)
            group.cancel_scope.cancel()

        group.start_soon(watch, stop, "asked to", name="stop")
        group.start_soon(watch, writer.closed, "the client reads no more", name="client left")
        async with stdio_server(cast("Any", lines), cast("Any", writer)) as (read, write):
            await protocol.run(read, write, protocol.create_initialization_options())
            stop.ask("end of input")
        group.cancel_scope.cancel()
