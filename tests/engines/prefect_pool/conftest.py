"""What tests of work pools share: a Prefect server, workers of ours in this process and beside it, and hand-made
attempts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.agents import AttemptContext, TaskCall
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.prefect.api import PrefectApi
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.prefect.pool import PoolAgent
from contexten.extensions.flow.prefect.worker import PoolWorker
from contexten.extensions.flow.prefect.workshop import Workshop

from .. import prefect_servers
from ..prefect_servers import PrefectServer
from . import postgres

LEASE_TTL_S = 4.0


@pytest.fixture(autouse=True)
def _no_prefect_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prefect's configuration of this machine does not reach the tests."""
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("DO_NOT_TRACK", "1")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server on PostgreSQL, reached at every address of this machine."""
    if postgres.missing() is not None:
        pytest.skip(f"PostgreSQL is not usable here: {postgres.missing()}")
    with postgres.serving() as url:
        settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
        with prefect_servers.serving(tmp_path_factory.mktemp("prefect-postgres"), **settings) as server:
            yield server


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> PrefectServer:
    """On PostgreSQL where there is one: that is what work pools need; on SQLite elsewhere."""
    name = "prefect_server" if postgres.missing() else "postgres_server"
    found: PrefectServer = request.getfixturevalue(name)
    return found


@pytest.fixture
def pool() -> str:
    """A name that no other test uses."""
    return f"pool-{uuid4().hex[:8]}"


@dataclass
class Told:
    """What an attempt told the journal."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    entries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)

    def log(self, level: str, message: str) -> None:
        self.lines.append((level, message))
        self.news.set()

    async def until(self, text: str, *, within_s: float = 30) -> None:
        """Wait for a line that holds the text."""
        with anyio.fail_after(within_s):
            while not any(text in message for _, message in self.lines):
                self.news = anyio.Event()
                await self.news.wait()


def call(*tools: str, **fields: Any) -> TaskCall:
    given: dict[str, Any] = {"name": "step", "type": "tool", "description": None, "parameters": {}, "complexity": 1}
    return TaskCall(**{**given, "required_tools": tools, "preferred_agent_type": None, **fields})


def about(told: Told | None = None, **fields: Any) -> AttemptContext:
    told = told or Told()
    given: dict[str, Any] = {"run_id": "run_1", "flow_id": "flow", "task": "step", "attempt": 1}
    given |= {"attempt_id": f"run_1:step:{uuid4().hex}", "inputs": {}, "context": {}}
    sinks: dict[str, Any] = {
        "log_sink": told.log,
        "record_sink": lambda event, data: told.entries.append((event, data)),
    }
    return AttemptContext(**{**given, **sinks, **fields})


@asynccontextmanager
async def submitting(url: str, pool: str, **more: Any) -> AsyncIterator[PoolAgent]:
    """The agent of a pool."""

    async def api() -> PrefectApi:
        return PrefectApi(ApiAddress(url=url))

    agent = PoolAgent(pool, api, SystemClock(), **{"lease_ttl_s": LEASE_TTL_S, **more})
    try:
        yield agent
    finally:
        await agent.aclose()


@pytest.fixture
def agent(server: PrefectServer, pool: str) -> AbstractAsyncContextManager[PoolAgent]:
    """The agent of the test's pool."""
    return submitting(server.url, pool)


@asynccontextmanager
async def working(
    url: str, pool: str, settings: FlowSettings, agents: Any = None, **more: Any
) -> AsyncIterator[PoolWorker]:
    """A worker in this process that takes attempts; `agents` make them."""
    workshop = Workshop(settings, agents=agents)
    worker = PoolWorker(pool, PrefectApi(ApiAddress(url=url)), workshop, **more)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run, stop)
        with anyio.fail_after(60):
            await worker.is_ready.wait()
        try:
            yield worker
        finally:
            stop.set()
    await workshop.aclose()


@pytest.fixture
def settings(tmp_path: Path) -> FlowSettings:
    """A worker's."""
    return FlowSettings(database=tmp_path / "never.sqlite3", stop_grace_s=0.2)


@dataclass
class Process:
    """A worker of ours as a process."""

    popen: subprocess.Popen[bytes]
    log: Path


Start = Callable[..., Process]


@pytest.fixture
def start_worker(server: PrefectServer, pool: str, tmp_path: Path) -> Iterator[Start]:
    """Start a worker for the test's pool, with a home and an environment of its own."""
    started: list[Process] = []

    def start(
        *arguments: str,
        program: tuple[str, ...] = ("contexten_server", "worker"),
        prefix: tuple[str, ...] = (),
        url: str = server.url,
        **environment: str,
    ) -> Process:
        number = len(started)
        home = tmp_path / f"home-{number}"
        home.mkdir()
        log = tmp_path / f"worker-{number}.log"
        environment |= {"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
        environment |= {"PREFECT_API_URL": url, "DO_NOT_TRACK": "1"}
        command = [*prefix, sys.executable, "-m", *program, "--pool", pool, *arguments]
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        started.append(Process(popen, log))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.popen.terminate()
    for process in started:
        try:
            process.popen.wait(10)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()


def state_of(server: PrefectServer, key: str) -> str | None:
    """The state of the flow run that an attempt's id names."""
    flow_run = server.flow_run(key)
    return flow_run["state"]["type"] if flow_run else None
