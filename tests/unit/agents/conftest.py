"""A local web server, and tools run as the built-in agent runs them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contexten.extensions.flow.agents import AttemptContext, BuiltinToolAgent, SecretVault, TaskCall
from contexten.extensions.flow.agents.tools import builtin_tools
from contexten.extensions.flow.agents.tools.http_client import HttpClient
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.settings import FlowSettings


@dataclass
class Reply:
    """What the server answers on a path."""

    status: int = 200
    body: bytes | list[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: threading.Event | None = None
    """Waited for after the headers, before the body."""


class WebServer:
    """Answers by path, keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[dict[str, Any]] = []
        self.connections: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer.connections.append(self.connection)

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                outer.requests.append(
                    {
                        "method": self.command,
                        "path": self.path,
                        "headers": {name.lower(): value for name, value in self.headers.items()},
                        "body": self.rfile.read(length),
                    }
                )
                reply = outer.replies.get(self.path.partition("?")[0], Reply(404, b"nothing here"))
                parts = reply.body if isinstance(reply.body, list) else [reply.body]
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if isinstance(reply.body, list):
                    self.send_header("Connection", "close")
                else:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if reply.hang is not None:
                    self.wfile.flush()
                    reply.hang.wait(60)
                with suppress(OSError):  # the client had enough
                    if self.command != "HEAD":
                        for part in parts:
                            self.wfile.write(part)
                if isinstance(reply.body, list):
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def on(self, path: str, status: int = 200, body: bytes | list[bytes] = b"", **options: Any) -> str:
        """Answer so on that path; its URL."""
        self.replies[path] = Reply(status, body, **options)
        return self.url + path

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        for reply in self.replies.values():
            if reply.hang is not None:
                reply.hang.set()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # clients keep them for the next request
        self.server.server_close()


@pytest.fixture
def start_web() -> Iterator[Callable[[], WebServer]]:
    servers: list[WebServer] = []

    def start() -> WebServer:
        servers.append(WebServer())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def web(start_web: Callable[[], WebServer]) -> WebServer:
    return start_web()


@pytest.fixture
def context() -> AttemptContext:
    return AttemptContext(
        run_id="run_1", flow_id="flow", task="task", attempt=1, attempt_id="run_1:task:1", inputs={}, context={}
    )


@pytest.fixture
def make_call() -> Callable[..., TaskCall]:
    def make(*tools: str, secrets: Mapping[str, frozenset[str]] | None = None, **parameters: Any) -> TaskCall:
        return TaskCall(
            name="task",
            type="tool",
            description=None,
            required_tools=tools,
            parameters=parameters,
            complexity=1,
            preferred_agent_type=None,
            secrets=secrets or {},
        )

    return make


def _held(value: Any, names: frozenset[str]) -> frozenset[str]:
    text = json.dumps(value, ensure_ascii=False)
    return frozenset(name for name in names if json.dumps(os.environ[name], ensure_ascii=False)[1:-1] in text)


@pytest.fixture
async def run_tools(
    context: AttemptContext, make_call: Callable[..., TaskCall]
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Runs tools with parameters. `secret_names` are the secrets that those parameters name in which their values
    stand, `secrets` says it for each parameter; the keyword `settings` takes settings, `resolver` a resolver for
    http_client."""
    agents: dict[str, BuiltinToolAgent] = {}

    async def run(
        *tools: str,
        settings: dict[str, Any] | None = None,
        secret_names: frozenset[str] = frozenset(),
        secrets: Mapping[str, frozenset[str]] | None = None,
        resolver: Any = None,
        **parameters: Any,
    ) -> Any:
        key = repr((settings, id(resolver)))
        if key not in agents:
            made = FlowSettings(**(settings or {}))
            offered = builtin_tools(made)
            if resolver is not None:
                offered["http_client"] = HttpClient(made, resolver=resolver)
            agents[key] = BuiltinToolAgent(made, SystemClock(), SecretVault(made), tools=offered)
        if secrets is None:
            secrets = {name: names for name, value in parameters.items() if (names := _held(value, secret_names))}
        return await agents[key].run(make_call(*tools, secrets=secrets, **parameters), context)

    yield run
    for agent in agents.values():
        await agent.aclose()
