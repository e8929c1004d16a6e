"""Our server and the bare one as processes, and MCP clients of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from benchmarks.referee import ROOT, child_environment

BARE = (str(ROOT / "benchmarks" / "bare_server.py"),)
READY_WITHIN_S = 60.0


def ours(database: Path) -> tuple[str, ...]:
    """Our server's command line, after the interpreter."""
    return ("-m", "contexten_server", "serve", "--db", str(database))


@asynccontextmanager
async def stdio(arguments: tuple[str, ...]) -> AsyncIterator[Client]:
    """A client of a server that this starts over stdio; the server's standard error is dropped."""
    server = StdioServerParameters(command=sys.executable, args=list(arguments), env=child_environment())
    with Path(os.devnull).open("w") as devnull:
        async with Client(stdio_client(server, errlog=devnull)) as client:
            yield client


@asynccontextmanager
async def http(database: Path) -> AsyncIterator[Client]:
    """A client of our server over streamable HTTP, in a process of its own."""
    async with serving(database) as base, Client(f"{base}/mcp") as client:
        yield client


@asynccontextmanager
async def serving(database: Path) -> AsyncIterator[str]:
    """Our server over HTTP in a process of its own, and its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, *ours(database), "--transport", "http", "--port", str(port)]
    async with await anyio.open_process(
        command, stdin=None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=child_environment()
    ) as process:
        try:
            await _until_ready(f"{base}/healthz")
            yield base
        finally:
            process.terminate()
            with anyio.move_on_after(10, shield=True):
                await process.wait()


async def _until_ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with anyio.fail_after(READY_WITHIN_S):
            while True:
                try:
                    if (await client.get(url)).is_success:
                        return
                except httpx.TransportError:
                    pass
                await anyio.sleep(0.05)
