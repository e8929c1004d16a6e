"""A server over the real service and a temporary database, and clients of both protocol eras."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten_resources import LiveUpdates
from contexten_server.assembly import build_server
from contexten_tools import App, ToolServer

ROOT = Path(__file__).resolve().parents[2]
ERAS = ("2026-07-28", "legacy")


@dataclass
class Gate:
    """An agent whose tasks end when the test opens it, with their parameters as output; they log what it is to say."""

    opened: anyio.Event = field(default_factory=anyio.Event)
    reached: anyio.Event = field(default_factory=anyio.Event)
    name: str = "gate"
    agent_type: str = "test"
    tools: tuple[str, ...] = ("gate",)
    capacity: int = 100
    saying: str | None = None

    async def run(self, task: Any, context: Any) -> Any:
        self.reached.set()
        if self.saying is not None:
            context.log("warning", self.saying)
        await self.opened.wait()
        return dict(task.parameters)


@dataclass
class Live:
    """An open service, the server over it, and the gate that its `gate` tasks wait at."""

    service: FlowService
    server: ToolServer
    app: App
    updates: LiveUpdates
    gate: Gate

    def client(self, era: str, **options: Any) -> Client:
        """A client in this process; enter it."""
        mode = "legacy" if era == "legacy" else "auto"
        return Client(self.server, mode=mode, client_info=Implementation(name="a test", version="1"), **options)

    @staticmethod
    def flow(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A definition with one stage of those tasks."""
        return {"stages": [{"name": "main", "tasks": list(tasks)}], **more}

    @staticmethod
    def value_task(name: str = "value", value: Any = 42) -> dict[str, Any]:
        """A task that gives that value."""
        return {"name": name, "required_tools": ["data_processor"], "parameters": {"data": value, "query": "@"}}

    @staticmethod
    def gate_task(name: str = "held", **parameters: Any) -> dict[str, Any]:
        """A task that ends when the gate is opened, and gives its parameters."""
        return {"name": name, "required_tools": ["gate"], "parameters": parameters}


@pytest.fixture
def settings(tmp_path: Path) -> FlowSettings:
    return FlowSettings(database=tmp_path / "flow.sqlite3", durability="process", stop_grace_s=0.5)


@pytest.fixture
async def live(settings: FlowSettings) -> AsyncIterator[Live]:
    gate = Gate()
    async with FlowService(settings, agents=[gate]) as service, LiveUpdates() as updates:
        app = App(service=service, settings=settings, transport="memory")
        server = build_server(app, updates=updates)
        await updates.start(service)
        yield Live(service=service, server=server, app=app, updates=updates, gate=gate)


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Served:
    """A server process that listens on loopback."""

    process: subprocess.Popen[str]
    base: str
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @asynccontextmanager
    async def client(self, era: str, transport: str = "http", **options: Any) -> AsyncIterator[Client]:
        """A client of that era over streamable HTTP or SSE."""
        mode = "legacy" if era == "legacy" else "auto"
        async with httpx2.AsyncClient(headers=self.headers, timeout=30) as http:
            if transport == "sse":
                channel: AbstractAsyncContextManager[Any] = sse_client(
                    f"{self.base}/sse", headers=self.headers, timeout=30
                )
            else:
                channel = streamable_http_client(f"{self.base}/mcp", http_client=http)
            async with Client(channel, mode=mode, **options) as client:
                yield client


def server_environment(database: Path, **settings: str) -> dict[str, str]:
    """The environment of a server process: this source tree, a database of its own, nothing of the developer's.
    Warnings are errors in it too; see `assert_nothing_ignored` for those that cannot be raised."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXTEN_FLOW_")}
    paths = [str(ROOT / folder) for folder in ("orchestrator", "server", "tools", "resources")]
    kept["PYTHONPATH"] = os.pathsep.join([kept.get("PYTHONPATH", ""), *paths, settings.pop("PYTHONPATH", "")])
    kept["PYTHONWARNINGS"] = "error"
    kept["CONTEXTEN_FLOW_DATABASE"] = str(database)
    config = database.parent / "empty.toml"
    config.touch()
    kept["CONTEXTEN_FLOW_CONFIG"] = str(config)
    return {**kept, **{f"CONTEXTEN_FLOW_{name}": value for name, value in settings.items()}}


def assert_nothing_ignored(told: str) -> None:
    """That Python has told of no error which it could not raise in a process, such as a coroutine that was never
    awaited. `told` is its standard error."""
    assert "Exception ignored in" not in told, told
    assert "never awaited" not in told, told


@pytest.fixture
def environment(tmp_path: Path) -> Callable[..., dict[str, str]]:
    return lambda **settings: server_environment(tmp_path / "flow.sqlite3", **settings)


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that no other program is given while this lasts; a server that is told of it can listen on it."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]


_LISTENING = re.compile(r"listening on (http://[^/ ]+)/mcp")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts servers over HTTP on free ports; they are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, token: str | None = None, **settings: str) -> Served:
        if token is not None:
            settings["TOKENS"] = token
        number = len(started)
        process = subprocess.Popen(
            [sys.executable, "-m", "contexten_server", "serve", "--transport", "http", "--port", "0", *arguments],
            env=server_environment(tmp_path / f"flow{number}.sqlite3", **settings),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := _LISTENING.search(line):
                return Served(process=process, base=found[1], token=token)
        raise AssertionError("the server did not start: " + "".join(said))

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for process in started:
        if process.stderr is not None and not process.stderr.closed:
            with process.stderr:
                assert_nothing_ignored(process.stderr.read())
