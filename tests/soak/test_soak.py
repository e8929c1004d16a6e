"""Everything at once, for a long time: hooks, schedules, chained flows, outgoing hooks, MCP clients, a stream of events
and the dashboard in a browser. Nothing is lost, nothing is done twice, memory stays flat.

`CONTEXTEN_SOAK` says for how many seconds; `make soak` takes half an hour.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import httpx
import psutil
import pytest
from mcp.client import Client
from standardwebhooks import Webhook

from ..browser.conftest import BROWSER_ARGUMENTS, chromium
from ..protocol.conftest import server_environment

SECONDS = float(os.environ.get("CONTEXTEN_SOAK", "5"))
IS_LONG = SECONDS >= 300  # shorter ones say nothing of memory: caches fill

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(7200 if IS_LONG else 120)]

SENDERS = 4
CLIENTS = 2
STREAMS = 3
SAMPLES = 40
GROWTH = 1.10  # the last quarter's memory against the second's
KEPT = "2000"  # runs, and deliveries

HOOKED = {"stages": [{"name": "work", "tasks": [{"name": "echo", "parameters": {"n": "{{ inputs.n }}"}}]}]}
ASKED = {"stages": [{"name": "work", "tasks": [{"name": f"step_{n}", "parameters": {"n": n}} for n in range(3)]}]}
PLAIN = {"stages": [{"name": "work", "tasks": [{"name": "nothing", "parameters": {"ok": True}}]}]}


@dataclass
class Tally:
    """What was acknowledged to those who asked, and what others heard."""

    accepted: list[str] = field(default_factory=list)
    asked: int = 0
    received: Counter[str] = field(default_factory=Counter)
    heard: list[Counter[str]] = field(default_factory=lambda: [Counter() for _ in range(STREAMS)])
    lags: int = 0
    resident: list[int] = field(default_factory=list)
    heap: list[float] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)

    def hear(self, place: int, run_id: str) -> None:
        """A stream told of a run's end."""
        self.heard[place][run_id] += 1
        self._news.set()

    async def until_all_heard(self, run_id: str) -> None:
        """Until every stream has told of that run's end."""
        while any(run_id not in heard for heard in self.heard):
            self._news = anyio.Event()
            await self._news.wait()


@contextmanager
def receiver(tally: Tally) -> Iterator[int]:
    """Takes outgoing hooks; in a long soak it refuses every fifth one at first: they come again after 30 s."""
    refused: set[str] = set()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            delivery = self.headers["webhook-id"]
            fails = IS_LONG and sum(delivery.encode()) % 5 == 0 and delivery not in refused
            if fails:
                refused.add(delivery)
            else:
                tally.received[delivery] += 1
            self.send_response(503 if fails else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@asynccontextmanager
async def serving(database: Path, **settings: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """A server process over HTTP: its address, and the process."""
    command = [sys.executable, "-m", "contexten_server", "serve", "--transport", "http", "--port", "0"]
    environment = server_environment(database, **settings)
    async with await anyio.open_process(command, stdin=None, stdout=subprocess.DEVNULL, env=environment) as process:
        assert process.stderr is not None
        said = b""
        while b"listening on " not in said or not said.endswith(b"\n"):
            said += await process.stderr.receive()
        base = said.split(b"listening on ")[1].split(b"/mcp")[0].decode()
        async with anyio.create_task_group() as group:
            group.start_soon(_drain, process.stderr)
            try:
                yield base, psutil.Process(process.pid)
            finally:
                process.terminate()
                with anyio.fail_after(20, shield=True):
                    assert await process.wait() == 0
                group.cancel_scope.cancel()


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


async def posted(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    """The answer of a request that must succeed."""
    answer = await http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def send_hooks(http: httpx.AsyncClient, path: str, secret: str, tally: Tally) -> None:
    """One after the other; every tenth is sent twice, as senders do that saw no answer."""
    webhook = Webhook(secret)
    while True:
        delivery, now = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)
        body = json.dumps({"type": "soak", "data": {"n": len(tally.accepted)}})
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": webhook.sign(delivery, now, body),
        }
        answer = await http.post(path, content=body, headers=headers)
        if answer.status_code == 429:
            await anyio.sleep(float(answer.headers["retry-after"]))
            continue
        assert answer.status_code == 202, answer.text
        tally.accepted.append(answer.json()["delivery_id"])
        if len(tally.accepted) % 10 == 0:
            again = await http.post(path, content=body, headers=headers)
            assert again.status_code == 200, again.text


async def ask(base: str, tally: Tally) -> None:
    """An MCP client: runs, and waits for each."""
    async with Client(f"{base}/mcp") as client:
        while True:
            started = await client.call_tool("execute_flow", {"workflow_def": ASKED, "wait_s": 20})
            assert not started.is_error, started.content
            assert started.structured_content is not None
            assert started.structured_content["state"] == "completed"
            tally.asked += 1


async def listen(base: str, place: int, tally: Tally) -> None:
    """A reader of the stream of events, as the dashboard is: counts the runs that it saw end."""
    async with (
        httpx.AsyncClient(base_url=base, trust_env=False, timeout=None) as http,
        http.stream("GET", "/api/events") as stream,
    ):
        event = ""
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                event = line.removeprefix("event:").strip()
                tally.lags += event == "lag"
            elif line.startswith("data:") and event == "change":
                change = json.loads(line.removeprefix("data:"))
                if change.get("state") in ("completed", "failed", "cancelled"):
                    tally.hear(place, change["run_id"])


@asynccontextmanager
async def dashboard(base: str) -> AsyncIterator[Any]:
    """The page of runs in a browser, open all the time."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=[*BROWSER_ARGUMENTS, "--enable-precise-memory-info"]
        )
        try:
            page = await browser.new_page()
            failures: list[str] = []
            page.on("pageerror", lambda error: failures.append(str(error)))
            await page.goto(f"{base}/#/runs")
            yield page
            assert failures == []
        finally:
            await browser.close()


async def sample(process: psutil.Process, page: Any, tally: Tally) -> None:
    """Memory, now and then, until the time is over."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        tally.resident.append(process.memory_info().rss)
        tally.heap.append(await page.evaluate("performance.memory.usedJSHeapSize"))
        await anyio.sleep(SECONDS / SAMPLES)


async def settled(http: httpx.AsyncClient) -> None:
    """Until nothing is under way: every delivery has its run, every run has ended, every outgoing hook is through. What
    starts runs by itself must have been switched off."""
    left: dict[str, Any] = {}
    try:
        with anyio.fail_after(300):
            while True:
                scheduler = (await http.get("/api/scheduler")).json()
                left = {
                    "deliveries": await _first(http, "deliveries", "accepted"),
                    "dispatches": await _first(http, "dispatches", "pending"),
                    "running": scheduler["running"],
                    "queued": scheduler["queued"],
                }
                if not any(left.values()):
                    return
                await anyio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"never came to rest; left: {json.dumps(left)}")


async def _first(http: httpx.AsyncClient, what: str, state: str) -> list[dict[str, Any]]:
    """One of those in that state, if there are any."""
    page = await http.get(f"/api/{what}", params={"state": state, "limit": 1})
    return list(page.json()[what])


async def test_everything_at_once_loses_nothing_and_grows_nowhere(tmp_path: Path) -> None:
    tally = Tally()
    database = tmp_path / "soak.sqlite3"
    with receiver(tally) as port:
        settings = {"ALLOW_HOSTS": f"127.0.0.1:{port}", "RETENTION_RUNS": KEPT, "MAX_CONCURRENT_FLOWS": "20"}
        async with (
            serving(database, **settings) as (base, process),
            httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as http,
        ):
            for flow_id, definition in (("hooked", HOOKED), ("after", PLAIN), ("ticked", PLAIN), ("last", PLAIN)):
                await posted(http, "/api/flows", {"flow_id": flow_id, "workflow_def": definition})
            inputs = {"n": "{{ event.payload.data.n }}"}
            hook = await posted(http, "/api/triggers", {"flow_id": "hooked", "kind": "webhook", "inputs": inputs})
            await posted(
                http, "/api/triggers", {"flow_id": "after", "kind": "flow", "config": {"flow_ids": ["hooked"]}}
            )
            clock = await posted(
                http, "/api/triggers", {"flow_id": "ticked", "kind": "interval", "config": {"every_s": 1}}
            )
            target = {"kind": "webhook", "url": f"http://127.0.0.1:{port}/", "events": ["run.completed"]}
            await posted(http, "/api/notifications", {**target, "flow_id": "ticked"})
            async with dashboard(base) as page, anyio.create_task_group() as listeners:
                for place in range(STREAMS):
                    listeners.start_soon(listen, base, place, tally)
                async with anyio.create_task_group() as senders:
                    for _ in range(SENDERS):
                        senders.start_soon(send_hooks, http, f"/hooks/{hook['trigger_id']}", hook["secret"], tally)
                    for _ in range(CLIENTS):
                        senders.start_soon(ask, base, tally)
                    await sample(process, page, tally)
                    senders.cancel_scope.cancel()
                stopped = await http.patch(f"/api/triggers/{clock['trigger_id']}", json={"enabled": False})
                assert stopped.is_success, stopped.text
                await settled(http)
                last = (await posted(http, "/api/runs", {"flow_id": "last"}))["run_id"]
                with anyio.fail_after(20):  # then all before it has been heard
                    await tally.until_all_heard(last)
                assert await page.locator("[data-run]").count() > 0
                listeners.cancel_scope.cancel()
    check(tally, database)


def check(tally: Tally, database: Path) -> None:
    """Prints the figures; then: nothing lost, nothing doubled, nothing grown."""
    with sqlite3.connect(database) as connection:
        deliveries = connection.execute("SELECT delivery_id, run_id, state FROM deliveries").fetchall()
        ever = dict(connection.execute("SELECT flow_id, runs FROM flows").fetchall())
    connection.close()
    counts = [len(heard) for heard in tally.heard]
    figures = {
        "seconds": SECONDS,
        "hooks": len(tally.accepted),
        "started_by_hooks": ever["hooked"],
        "chained": ever["after"],
        "ticks": ever["ticked"],
        "calls": tally.asked,
        "messages": len(tally.received),
        "heard": counts,
        "resident_mib": [round(_part(tally.resident, number) / 2**20, 1) for number in range(4)],
        "page_heap_mib": [round(_part(tally.heap, number) / 2**20, 1) for number in range(4)],
    }
    sys.stderr.write(f"\nsoak: {json.dumps(figures)}\n")
    assert len(tally.accepted) > SENDERS
    assert len(set(tally.accepted)) == len(tally.accepted)
    # A sender that was stopped between its request and the answer may have been accepted without having heard of it.
    assert len(tally.accepted) <= ever["hooked"] <= len(tally.accepted) + SENDERS
    assert ever["after"] == ever["hooked"]
    assert {state for *_, state in deliveries} == {"started"}
    started = {delivery: run for delivery, run, _ in deliveries}
    assert set(tally.accepted[-int(KEPT) // 4 :]) <= set(started)  # older ones may be pruned
    assert len(set(started.values())) == len(started)
    assert set(tally.received.values()) <= {1}
    assert len(tally.received) == ever["ticked"]
    assert tally.lags == 0
    assert max(counts) - min(counts) == 0
    unanswered = counts[0] - ever["hooked"] - ever["after"] - ever["ticked"] - ever["last"] - tally.asked
    assert 0 <= unanswered <= CLIENTS  # their clients were stopped while they waited
    if IS_LONG:
        assert _part(tally.resident, 3) < _part(tally.resident, 1) * GROWTH
        assert _part(tally.heap, 3) < _part(tally.heap, 1) * 1.5


def _part(values: list[Any], quarter: int) -> float:
    """The median of a quarter of what was measured."""
    size = max(1, len(values) // 4)
    return float(statistics.median(values[quarter * size : (quarter + 1) * size] or values[-1:]))
