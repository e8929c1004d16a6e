"""The server of the demonstration: a process of its own, spoken to over stdio by a real MCP client."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
from mcp import Client, StdioServerParameters, stdio_client

from contexten.extensions.flow.errors import FlowError


class ProgressListener(Protocol):
    """Hears how far a call has come."""

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """`message` says it in words."""


class DemoFailed(FlowError):
    """Something did not happen as the demonstration tells it."""

    code = "demo_failed"


class Served:
    """A running server and its client."""

    def __init__(self, client: Client, process: psutil.Process) -> None:
        self.client = client
        self.process = process

    async def call(
        self, tool: str, arguments: dict[str, Any], progress: ProgressListener | None = None
    ) -> dict[str, Any]:
        """A tool's structured answer. Raises DemoFailed where the tool refuses."""
        result = await self.client.call_tool(tool, arguments, progress_callback=progress)
        answer: dict[str, Any] | None = result.structured_content
        if result.is_error or answer is None:
            raise DemoFailed(f"{tool} was refused: {answer or result.content}")
        return answer

    def kill(self) -> None:
        """End the server at once, with no chance to say goodbye (SIGKILL). Its client reaps it."""
        self.process.kill()


@asynccontextmanager
async def served(folder: Path, source: str) -> AsyncIterator[Served]:
    """Start a server on the folder's database, allowed to reach the source and to write into the folder."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "contexten_server", "serve", "--db", str(folder / "flow.sqlite3"), "--log-level", "warning"],
        env={"CONTEXTEN_FLOW_ALLOW_HOSTS": source, "CONTEXTEN_FLOW_ALLOW_PATHS": str(folder)},
        cwd=folder,
    )
    before = {child.pid for child in psutil.Process().children()}
    with (folder / "server.log").open("a", encoding="utf-8") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            (process,) = [child for child in psutil.Process().children() if child.pid not in before]
            yield Served(client, process)
