"""A client of the MCP SDK alone: calls of a bare server's tool over stdio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.contestant import RunFlow, main


@asynccontextmanager
async def open_mcp(_folder: Path) -> AsyncIterator[RunFlow]:
    """A client that connects with its first call."""
    async with AsyncExitStack() as stack:
        clients: list[Any] = []

        async def run_flow(steps: int) -> None:
            if not clients:
                from benchmarks.server_process import BARE, stdio

                clients.append(await stack.enter_async_context(stdio(BARE)))
            for _ in range(steps):
                result = await clients[0].call_tool("noop", {})
                if result.structured_content != {"ok": True}:
                    raise RuntimeError(f"the tool answered {result}")

        yield run_flow


if __name__ == "__main__":
    main(open_mcp, "measure an MCP client alone")
