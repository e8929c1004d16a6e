"""Real Prefect servers on SQLite for tests, a tap before one that can be shut, and questions to its API."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

START_S = 120


@dataclass(frozen=True)
class PrefectServer:
    """A server that runs."""

    url: str
    home: Path

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What its API answers to a POST (a GET without a body)."""
        method = "GET" if body is None else "POST"
        response = httpx.request(method, f"{self.url}{path}", json=body, timeout=30)
        response.raise_for_status()
        return response.json() if response.content else None

    def delete(self, path: str) -> None:
        """Delete what stands there."""
        httpx.delete(f"{self.url}{path}", timeout=30).raise_for_status()

    def flow_run(self, run_id: str) -> dict[str, Any] | None:
        """The flow run that shows a run."""
        found = self.ask("/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": [run_id]}}})
        return found[0] if found else None

    def task_runs(self, flow_run_id: str) -> dict[str, dict[str, Any]]:
        """The task runs of a flow run, by name."""
        found = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
        names = [task_run["name"] for task_run in found]
        assert len(set(names)) == len(names)
        return {task_run["name"]: task_run for task_run in found}

    def states(self, kind: str, id: str) -> list[str]:
        """The names of the states that a flow run or a task run went through."""
        found = self.ask(f"/{kind}_run_states/?{kind}_run_id={id}")
        return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]

    def logs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """The lines of a flow run's log, oldest first."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
        found: list[dict[str, Any]] = self.ask("/logs/filter", body)
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[PrefectServer]:
    """A Prefect server with a home of its own, and more settings as its environment."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        **settings,
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}/api"
            _wait_for(url, process, home)
            yield PrefectServer(url, home)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError("the Prefect server did not start:\n" + (home / "server.log").read_text()[-3000:])


class Tap:
    """Stands before an API and can be shut: then it breaks what is under way, and refuses what comes.

    With `bearer` it asks for that key, as Prefect Cloud does.
    """

    def __init__(self, url: str, *, bearer: str | None = None) -> None:
        target = httpx.URL(url)
        self._target = (target.host, target.port or 80)
        self._bearer = bearer
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self._port = 0
        self.requests = self.refused = self.lost = 0
        self.status: int | None = None
        """Answer each request with this status."""
        self.page = b""
        """What stands in such an answer."""
        self.loses_answers = False
        """Pass requests on, and break the connection instead of passing their answers back."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for flow in list(self._flows):
            flow.cancel()
        if self._flows:
            await asyncio.wait(self._flows)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        try:
            while await self._pass_on(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._flows.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        }
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        self.requests += 1
        refusal = self.status
        if self._bearer is not None and fields.get("authorization") != f"Bearer {self._bearer}":
            refusal = 401
        if refusal is not None:
            self.refused += 1
            writer.write(f"HTTP/1.1 {refusal} Said\r\nContent-Length: {len(self.page)}\r\n\r\n".encode() + self.page)
            await writer.drain()
            return True
        upstream_reader, upstream = await asyncio.open_connection(*self._target)
        try:
            head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            upstream.write(head.replace(b"Connection: keep-alive\r\n", b"", 1) + body)
            await upstream.drain()
            answer = await upstream_reader.read()
        finally:
            upstream.close()
        if self.loses_answers:
            self.lost += 1
            return False
        writer.write(answer)
        await writer.drain()
        return False
