"""A receiver of messages in the test's own event loop, and the wait for what becomes of a message."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.live.watching import Change


@dataclass
class Message:
    """What arrived."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def data(self) -> Any:
        """The body as JSON data."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """Keeps what it is sent, and answers by path: a status (200 else) after `held` of that path is set."""

    messages: list[Message] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    held: dict[str, anyio.Event] = field(default_factory=dict)
    url: str = ""
    under_way: int = 0
    most_at_once: int = 0
    _news: anyio.Event = field(default_factory=anyio.Event)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await self._answer(reader, writer)
        writer.close()
        self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split(" ")[1].partition("?")[0]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        body = (await reader.readexactly(int(headers["content-length"]))).decode()
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            self.messages.append(Message(path, headers, body))
            self._news.set()
            if path in self.held:
                await self.held[path].wait()
        finally:
            self.under_way -= 1
        status = self.statuses.get(path, 200)
        said = f"HTTP/1.1 {status} Said\r\ncontent-length: 4\r\n"
        said += "".join(f"{name}: {value}\r\n" for name, value in self.headers.get(path, {}).items())
        writer.write(f"{said}\r\nwell".encode())
        await writer.drain()

    async def has(self, number: int, path: str | None = None) -> list[Message]:
        """Wait until so many messages came (to that path); answers all of them."""
        with anyio.fail_after(30):
            while len(found := [one for one in self.messages if path in (None, one.path)]) < number:
                self._news = anyio.Event()
                await self._news.wait()
        return found

    async def aclose(self) -> None:
        for event in self.held.values():
            event.set()
        for task in list(self._tasks):
            task.cancel()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    await found.start()
    yield found
    await found.aclose()


@pytest.fixture
def settings(settings: FlowSettings) -> FlowSettings:
    """Messages may go to this machine."""
    return settings.model_copy(update={"allow_hosts": ("127.0.0.1",)})


@pytest.fixture
def unused_tcp_port_url() -> Iterator[str]:
    """An address of this machine at which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


VALUE = {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": [1], "query": "@"}}


@pytest.fixture
def run() -> Callable[..., Awaitable[str]]:
    """Run a flow of one task, which fails where that is asked for; answers the run's id."""

    async def start(flows: FlowService, *, fails: bool = False, **fields: Any) -> str:
        task = {**VALUE, "when": "1 / 0 > 1"} if fails else VALUE
        definition = {"name": "Test", "stages": [{"name": "only", "tasks": [task]}], **fields}
        ended = await flows.run_flow(workflow_def=definition)
        assert ended.state == ("failed" if fails else "completed"), ended
        return ended.run_id

    return start


class Entries:
    """Hears the journal of a service."""

    def __init__(self, flows: FlowService) -> None:
        self._flows = flows
        self._heard: list[str] = []
        self._news = anyio.Event()
        flows.subscribe(self._hear)

    def _hear(self, change: Change) -> None:
        self._heard.extend(change.types)
        self._news.set()

    async def have(self, number: int, type_: str) -> None:
        """Wait until so many entries of that type came since this was made."""
        with anyio.fail_after(30):
            while self._heard.count(type_) < number:
                self._news = anyio.Event()
                await self._news.wait()


@pytest.fixture
def entries() -> Callable[[FlowService], Entries]:
    return Entries
