"""Services whose flows use MCP servers: programs, and servers over HTTP in the test's own process."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.views import RunView

from .example_server import Events, build_server

HERE = Path(__file__).parent
EXAMPLE = str(HERE / "example_server.py")

Answer = tuple[int, dict[str, str], bytes]


def example(*flags: str, **more: Any) -> dict[str, Any]:
    """The entry of the example server as a program."""
    return {"command": sys.executable, "args": [EXAMPLE, *flags], **more}


def bad(how: str, **more: Any) -> dict[str, Any]:
    """The entry of a server that misbehaves."""
    return {"command": sys.executable, "args": [str(HERE / "bad_server.py"), how], **more}


@dataclass
class Flows:
    """An open service, and flows of one task."""

    service: FlowService

    @property
    def registry(self) -> Any:
        """Its agents."""
        return self.service.registry

    def state(self, name: str) -> str:
        """What list_agents tells of a server."""
        return next(str(agent["state"]) for agent in self.registry.snapshot()["agents"] if agent["name"] == name)

    @staticmethod
    def flow(tool: str | list[str], /, task: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
        """A definition with one task."""
        tools = [tool] if isinstance(tool, str) else tool
        body = {"name": "t", "required_tools": tools, "parameters": parameters, **(task or {})}
        return {"stages": [{"name": "main", "tasks": [body]}]}

    async def start(self, tool: str | list[str], /, task: dict[str, Any] | None = None, **parameters: Any) -> str:
        """Execute a flow of one task; answers its run's id."""
        return (await self.service.execute_flow(workflow_def=self.flow(tool, task, **parameters))).run_id

    async def end(self, run_id: str) -> RunView:
        """The run when it is over, with its output."""
        with anyio.fail_after(60):
            await self.service.wait(run_id)
        return await self.service.get_run(run_id, detail="output")

    async def run(self, tool: str | list[str], /, task: dict[str, Any] | None = None, **parameters: Any) -> RunView:
        """Execute such a flow to its end."""
        return await self.end(await self.start(tool, task, **parameters))

    async def output(self, tool: str, /, **parameters: Any) -> Any:
        """The output of a tool that does not fail."""
        view = await self.run(tool, **parameters)
        assert view.error is None, view.error
        assert isinstance(view.output, dict)
        return view.output["t"]

    async def failure(self, tool: str, /, **parameters: Any) -> tuple[str, str]:
        """Kind and message of a tool's failure, which is not tried again."""
        view = await self.run(tool, {"retry": {"max_attempts": 1}}, **parameters)
        assert view.error is not None, view.output
        return view.error.kind, view.error.message

    async def logs(self, run_id: str) -> list[str]:
        """The lines of its attempts."""
        events = await self.service.events(run_id)
        return [str((event.details or {}).get("message")) for event in events if event.type == "task.log"]


Open = Callable[..., AbstractAsyncContextManager[Flows]]


@pytest.fixture
def open_flows(tmp_path: Path) -> Open:
    """Opens a service that knows the servers given by name, as in `mcpServers`."""

    @asynccontextmanager
    async def opened(servers: dict[str, Any], agents: Any = None, **settings: Any) -> AsyncIterator[Flows]:
        file = tmp_path / "servers.json"
        file.write_text(json.dumps({"mcpServers": servers}))
        given: dict[str, Any] = {"database": tmp_path / "flow.sqlite3", "retry_delay_s": 0, "durability": "process"}
        async with FlowService(FlowSettings(mcp_servers=file, **{**given, **settings}), agents=agents) as service:
            yield Flows(service)

    return opened


@pytest.fixture(params=["2026-07-28", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class HttpServer:
    """The example server over HTTP, in this process; `restart` makes it forget its sessions."""

    url: str
    is_legacy: bool
    events: Events = field(default_factory=Events)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    """Given to the next POST requests instead of the server's own."""
    _app: Any = None
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        server = build_server(self.events, is_legacy=self.is_legacy)
        self._app = server.streamable_http_app()
        self._over, begun = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._hold(server, self._over, begun))
        await begun.wait()

    @staticmethod
    async def _hold(server: MCPServer, over: asyncio.Event, begun: asyncio.Event) -> None:
        async with server.session_manager.run():
            begun.set()
            await over.wait()

    async def restart(self) -> None:
        """A new server at the same address."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """End all sessions."""
        self._over.set()
        if self._task is not None:
            await self._task

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((scope["method"], headers))
        if scope["method"] == "POST" and self.answers:
            status, given, body = self.answers.pop(0)
            pairs = [(name.encode(), value.encode()) for name, value in given.items()]
            await send({"type": "http.response.start", "status": status, "headers": pairs})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)


@asynccontextmanager
async def served(app: Any, listening: socket.socket) -> AsyncIterator[None]:
    """Serve an ASGI application on a socket of this process."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: server.serve(sockets=[listening]))
        try:
            yield
        finally:
            server.should_exit = server.force_exit = True


@contextmanager
def listening_socket() -> Iterator[tuple[socket.socket, str]]:
    """A free port of this machine, and the address of a server there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"


@pytest.fixture
async def http_server(era: str) -> AsyncIterator[HttpServer]:
    """The example server, of one era."""
    with listening_socket() as (listening, url):
        server = HttpServer(url, era == "legacy")
        await server.start()
        try:
            async with served(server, listening):
                yield server
        finally:
            await server.stop()
