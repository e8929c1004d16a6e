"""An orderly end over HTTP: no new work, complete streams, attempts that finish or go on elsewhere; and readiness."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from standardwebhooks import Webhook
from starlette.applications import Starlette

from contexten.extensions.flow.errors import Closing, StoreBusy, StoreFull
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store.verify import verify
from contexten_server import health
from contexten_tools import App

pytestmark = pytest.mark.anyio


QUICK = {"stages": [{"name": "main", "tasks": [{"name": "quick", "type": "wait", "parameters": {"seconds": 0}}]}]}


def signed(secret: str) -> dict[str, Any]:
    """A webhook, as its sender signs it."""
    body, at = json.dumps({"type": "test"}), datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body),
        "content-type": "application/json",
    }
    return {"content": body, "headers": headers}


class Doors:
    """Tasks that read a named pipe: each attempt lasts until the test writes to it."""

    def __init__(self, folder: Path, *names: str) -> None:
        self._folder = folder
        self.names = names
        for name in names:
            os.mkfifo(folder / name)

    def flow(self) -> dict[str, Any]:
        """One such task after the other."""
        tasks = [
            {"name": name, "required_tools": ["shell"], "parameters": {"argv": ["cat", str(self._folder / name)]}}
            for name in self.names
        ]
        return {"stages": [{"name": "main", "tasks": tasks}]}

    async def reached(self, name: str) -> int:
        """Wait until an attempt reads, which goes on reading; answers what `end` takes."""
        return await anyio.to_thread.run_sync(os.open, self._folder / name, os.O_WRONLY, abandon_on_cancel=True)

    @staticmethod
    def end(*doors: int) -> None:
        """Let those attempts end that were waited for."""
        for door in doors:
            os.write(door, b"done")
            os.close(door)


@pytest.fixture
def settings_of_servers(tmp_path: Path) -> dict[str, str]:
    return {"DATABASE": str(tmp_path / "shared.sqlite3"), "ALLOW_COMMANDS": "cat", "ALLOW_PATHS": str(tmp_path)}


@asynccontextmanager
async def client(base: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base, timeout=30) as http:
        yield http


async def start(http: httpx.AsyncClient, flow: dict[str, Any]) -> str:
    answer = await http.post("/api/runs", json={"workflow_def": flow})
    assert answer.status_code < 300, answer.text
    return str(answer.json()["run_id"])


async def test_a_server_that_stops_ends_streams_refuses_work_and_finishes_attempts(
    serve: Callable[..., Any], tmp_path: Path, settings_of_servers: dict[str, str]
) -> None:
    doors = Doors(tmp_path, "first", "second")
    served = serve(STOP_GRACE_S="20", **settings_of_servers)
    streaming, ended = anyio.Event(), anyio.Event()

    async def follow() -> None:
        async with client(served.base) as http, http.stream("GET", "/api/events") as response:
            async for line in response.aiter_lines():
                if line:
                    streaming.set()
            ended.set()  # a complete response: no error was raised

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            async with client(served.base) as http:
                run_id = await start(http, doors.flow())
                await http.post("/api/flows", json={"workflow_def": QUICK, "flow_id": "quick"})
                hook = (await http.post("/api/triggers", json={"kind": "webhook", "flow_id": "quick"})).json()
                first = await doors.reached("first")
                await streaming.wait()
                assert (await http.get("/readyz")).json() == {"ready": True}
                served.process.send_signal(signal.SIGTERM)
                await ended.wait()
            async with client(served.base) as http:  # new connections are answered, too
                refused = await http.post("/api/runs", json={"workflow_def": doors.flow()})
                assert refused.status_code == 503
                assert int(refused.headers["Retry-After"]) > 0
                assert refused.json()["error"]["code"] == "closing"
                assert refused.json()["error"]["retryable"]
                assert (await http.post("/mcp", json={})).status_code == 503
                ready = await http.get("/readyz")
                assert (ready.status_code, ready.json()) == (503, {"ready": False, "code": "closing"})
                assert (await http.get("/healthz")).status_code == 200
                taken = await http.post(hook["url"], **signed(hook["secret"]))  # what is recorded now starts later
                assert taken.status_code == 202, taken.text
            doors.end(first)
            assert await anyio.to_thread.run_sync(served.process.wait, 20) == 0
        database = Path(settings_of_servers["DATABASE"])
        assert verify(database).problems == []
        async with FlowService(FlowSettings(database=database), drive=False) as service:
            run = await service.get_run(run_id, detail="tasks")
            assert run.state == "running"  # nobody's now
            assert {task.name: task.state for task in run.tasks or []} == {"first": "completed", "second": "pending"}
        second = serve(**settings_of_servers)
        doors.end(await doors.reached("second"))
        assert await end_of(second, run_id) == "completed"
        async with client(second.base) as http:
            delivery: dict[str, Any] = {}
            while "run_id" not in delivery:
                (delivery,) = (await http.get("/api/deliveries")).json()["deliveries"]
        assert await end_of(second, delivery["run_id"]) == "completed"


async def end_of(served: Any, run_id: str) -> str:
    """The run's state once it has ended."""
    async with served.client("2026-07-28") as client:
        run = await client.call_tool("wait_for_flow", {"run_id": run_id, "timeout_s": 40})
        return str(run.structured_content["state"])


async def test_what_does_not_end_within_the_grace_goes_on_in_another_server(
    serve: Callable[..., Any], tmp_path: Path, settings_of_servers: dict[str, str]
) -> None:
    doors = Doors(tmp_path, "door")
    first = serve(STOP_GRACE_S="0.2", **settings_of_servers)
    with anyio.fail_after(60):
        async with client(first.base) as http:
            run_id = await start(http, doors.flow())
        before = await doors.reached("door")
        second = serve(**settings_of_servers)
        first.process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(first.process.wait, 20) == 0
        doors.end(await doors.reached("door"), before)
        assert await end_of(second, run_id) == "completed"
    database = Path(settings_of_servers["DATABASE"])
    assert verify(database).problems == []
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT type FROM events WHERE run_id = ? ORDER BY seq", (run_id,)).fetchall()
    types = [row[0] for row in rows]
    assert types.count("task.completed") == types.count("run.completed") == 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes that are not its children")
async def test_a_command_that_hears_no_signal_does_not_outlive_the_server(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    told, script = tmp_path / "told", f"trap '' TERM; sleep 1000 & echo $$ $! > {tmp_path}/told; wait"
    os.mkfifo(told)
    task = {"name": "deaf", "required_tools": ["shell"], "parameters": {"argv": ["sh", "-c", script]}}
    served = serve(STOP_GRACE_S="0.2", ALLOW_COMMANDS="sh")
    with anyio.fail_after(60):
        async with client(served.base) as http:
            await start(http, {"stages": [{"name": "main", "tasks": [task]}]})
        pids = (await anyio.to_thread.run_sync(told.read_text, abandon_on_cancel=True)).split()
        ends = [os.pidfd_open(int(pid)) for pid in pids]
        served.process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(served.process.wait, 20) == 0
        for end in ends:
            await anyio.wait_readable(end)
            os.close(end)


async def test_requests_that_are_sent_by_halves_end_with_the_server_and_are_no_defects(
    serve: Callable[..., Any],
) -> None:
    served = serve(STOP_GRACE_S="0.2")
    port = int(served.base.rpartition(":")[2])
    half = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n{"
    with anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port)) for _ in range(3)]
            for stream in streams:
                await stream.send(half)
                assert (await stream.receive()).startswith(b"HTTP/1.1 100 ")  # the body is waited for
            served.process.send_signal(signal.SIGTERM)
            answers = [b"".join([part async for part in stream]) for stream in streams]
        assert await anyio.to_thread.run_sync(served.process.wait, 20) == 0
    assert [answer.partition(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 503 Service Unavailable"] * 3
    told = served.process.stderr.read()
    assert "Stopping" in told
    assert "Traceback" not in told


# Readiness
async def ask(app: App, path: str = "/readyz", stopping: anyio.Event | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=health.routes(app, stopping)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get(path)


async def test_a_server_is_ready_while_it_can_record(settings: FlowSettings) -> None:
    service = FlowService(settings)
    app = App(service=service, settings=settings)
    async with service:
        assert (await ask(app)).json() == {"ready": True}
    closed = await ask(app)
    assert (closed.status_code, closed.json()) == (503, {"ready": False, "code": "closing"})
    assert (await ask(app, "/healthz")).text == "ok\n"


async def test_a_server_that_is_about_to_stop_is_not_ready(settings: FlowSettings) -> None:
    stopping = anyio.Event()
    async with FlowService(settings) as service:
        app = App(service=service, settings=settings)
        assert (await ask(app, stopping=stopping)).status_code == 200
        stopping.set()
        assert (await ask(app, stopping=stopping)).json() == {"ready": False, "code": "closing"}


@pytest.mark.parametrize("error", [StoreFull, StoreBusy, Closing])
async def test_a_server_that_cannot_record_says_why_and_only_that(
    settings: FlowSettings, error: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FlowService(settings) as service:
        write = service._store.write

        async def refuse(change: Any) -> Any:
            raise error("a text for operators")

        monkeypatch.setattr(service._store, "write", refuse)
        answer = await ask(App(service=service, settings=settings))
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "code": error.code})
        monkeypatch.setattr(service._store, "write", write)
        assert (await ask(App(service=service, settings=settings))).status_code == 200


async def test_a_database_that_was_taken_away_makes_a_server_not_ready(settings: FlowSettings) -> None:
    async with FlowService(settings) as service:
        app = App(service=service, settings=settings)
        assert (await ask(app)).status_code == 200
        away = settings.database.with_name("away")
        settings.database.rename(away)
        answer = await ask(app)
        away.rename(settings.database)
    assert (answer.status_code, answer.json()["code"]) == (503, "store_error")


async def test_many_who_ask_cost_one_commit(settings: FlowSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, asked = 100.0, 0

    class Service:
        async def check_ready(self) -> None:
            nonlocal asked
            asked += 1
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(health, "monotonic", lambda: seconds)
    routes = health.routes(App(service=cast("Any", Service()), settings=settings))
    transport = httpx.ASGITransport(Starlette(routes=routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(http.get, "/readyz")
        assert asked == 1
        seconds += 2
        await http.get("/readyz")
    assert asked == 2
