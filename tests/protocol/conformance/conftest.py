"""The public test tools (installed by `make node-tools`) and a running server for them to test."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from ..conftest import reserved_port

NODE_MODULES = Path(__file__).parents[1] / "node" / "node_modules"
READY_WITHIN_S = 60.0  # a cold start on a busy machine
CALL_WITHIN_S = 90.0  # the suite gives each scenario 30 s, the Inspector starts a server a call

# Warnings are errors in tests, but not in the server that a test starts.
SERVER_ENV = {name: value for name, value in os.environ.items() if not name.startswith(("CONTEXTEN_FLOW_", "PYTHONW"))}


def _installed(*parts: str) -> Path:
    path = NODE_MODULES.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} under tests/protocol/node: run `make node-tools`")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgram:
    """A JavaScript program and the Node that runs it."""

    node: Path
    script: Path

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run it to its end and return its exit code, standard output and standard error."""
        path = os.pathsep.join([str(self.node.parent), os.environ.get("PATH", "")])
        with anyio.fail_after(CALL_WITHIN_S):
            done = await anyio.run_process(
                [str(self.node), str(self.script), *arguments], check=False, env=SERVER_ENV | {"PATH": path}
            )
        return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope="session")
def conformance() -> NodeProgram:
    """The conformance suite's command line."""
    return NodeProgram(
        node=_installed(".bin", "node"),
        script=_installed("@modelcontextprotocol", "conformance", "dist", "index.js"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspector:
    """The MCP Inspector without its window, pointed at one server."""

    program: NodeProgram
    target: tuple[str, ...]

    async def __call__(self, method: str, *options: str) -> dict[str, Any]:
        """The result of `method`, as the Inspector prints it."""
        code, out, err = await self.program("--cli", *self.target, "--method", method, *options)
        assert code == 0, f"the Inspector failed at {method}:\n{out}\n{err}"
        answer = json.loads(out)
        assert isinstance(answer, dict)
        return answer

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's structured answer; fails where the tool refused the call."""
        options = ["--tool-name", tool]
        for name, value in arguments.items():
            options += ["--tool-arg", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        result = await self("tools/call", *options)
        assert not result.get("isError"), result
        answer = result["structuredContent"]
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="session")
def inspector_program() -> NodeProgram:
    """The Inspector's command line."""
    return NodeProgram(
        node=_installed(".bin", "node"),
        script=_installed("@modelcontextprotocol", "inspector", "cli", "build", "cli.js"),
    )


def _serve(database: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "contexten_server", "serve", "--db", str(database), *options]


async def _until_ready(process: anyio.abc.Process, url: str, stderr: Path) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with anyio.fail_after(READY_WITHIN_S):
            while True:
                with anyio.move_on_after(0.1):
                    await process.wait()
                    pytest.fail(f"the server ended before it was ready:\n{stderr.read_text()}")
                try:
                    response = await client.get(url)
                except httpx.TransportError:
                    continue
                if response.status_code == httpx.codes.OK:
                    return


@pytest.fixture(scope="module")
async def served_url(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The MCP address of a server of our own over streamable HTTP, on a fresh database."""
    folder = tmp_path_factory.mktemp("served")
    stderr = folder / "stderr.txt"
    with reserved_port() as port, stderr.open("wb") as log:
        process = await anyio.open_process(
            _serve(folder / "flow.sqlite3", "--transport", "http", "--port", str(port)),
            stdin=None,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=SERVER_ENV,
        )
        async with process:
            try:
                await _until_ready(process, f"http://127.0.0.1:{port}/healthz", stderr)
                yield f"http://127.0.0.1:{port}/mcp"
            finally:
                if process.returncode is None:
                    process.terminate()
                with anyio.move_on_after(10, shield=True):
                    await process.wait()
                if process.returncode is None:
                    process.kill()


@pytest.fixture
def inspector_over_http(inspector_program: NodeProgram, served_url: str) -> Inspector:
    """The Inspector pointed at the running HTTP server."""
    return Inspector(program=inspector_program, target=(served_url, "--transport", "http"))


@pytest.fixture
def inspector_over_stdio(inspector_program: NodeProgram, tmp_path: Path) -> Inspector:
    """The Inspector that starts a server over stdio for each call, always on the same database."""
    return Inspector(program=inspector_program, target=tuple(_serve(tmp_path / "flow.sqlite3")))
