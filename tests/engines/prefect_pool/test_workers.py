"""Workers as processes of their own, driven by a service through a real Prefect server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.prefect.pool import PoolAgent
from contexten.extensions.flow.settings import SecretGrant

from ..prefect_servers import PrefectServer, free_port
from .conftest import LEASE_TTL_S, Start, about, call, submitting

pytestmark = pytest.mark.anyio

START_S = 60.0  # a worker's imports, on a busy machine


@pytest.fixture
def service(server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowService:
    """A service that submits. It knows no secret's value; what runs must be allowed here and on the worker."""
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    return FlowService(
        FlowSettings(
            database=tmp_path / "flow.sqlite3",
            lease_ttl_s=LEASE_TTL_S,
            retry_delay_s=0.01,
            stop_grace_s=0.1,
            allow_commands=("sh",),
            secrets=(SecretGrant(name="TOKEN", tools=("shell",)),),
        )
    )


def shell(name: str, script: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "required_tools": ["shell"], "parameters": {"argv": ["sh", "-c", script], **parameters}}


def flow(*tasks: dict[str, Any], mode: str = "sequential") -> dict[str, Any]:
    return {"stages": [{"name": "main", "execution_mode": mode, "tasks": list(tasks)}]}


async def _there(path: Path) -> None:
    with anyio.fail_after(START_S):
        while not path.exists():  # noqa: ASYNC110 - another process makes it
            await anyio.sleep(0.05)


def _workers(server: PrefectServer, pool: str) -> list[Any]:
    try:
        found: list[Any] = server.ask(f"/work_pools/{pool}/workers/filter", {})
    except httpx.HTTPStatusError:  # the pool is not made yet
        return []
    return found


async def _online(server: PrefectServer, pool: str, number: int = 1) -> None:
    """Until the pool has so many workers."""
    with anyio.fail_after(START_S):
        while len(await anyio.to_thread.run_sync(_workers, server, pool)) < number:  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.1)


async def test_a_worker_that_is_killed_costs_an_attempt_and_not_the_run(
    service: FlowService, server: PrefectServer, pool: str, start_worker: Start, tmp_path: Path
) -> None:
    trace, go = tmp_path / "trace", tmp_path / "go"
    script = f"echo begun >> {trace}; while ! test -e {go}; do sleep 0.1; done; echo $TOKEN"
    tasks = (
        shell("before", "echo one"),
        {
            **shell("work", script),
            "parameters": {"argv": ["sh", "-c", script], "env": {"TOKEN": "{{ secrets.TOKEN }}"}},
        },
    )
    environment = {
        "CONTEXTEN_FLOW_ALLOW_COMMANDS": "sh",
        "CONTEXTEN_FLOW_SECRETS": "TOKEN@tool:shell",
        "TOKEN": "swordfish-swordfish",
    }
    first = start_worker(**environment)
    await _online(server, pool)
    async with service:
        run = await service.execute_flow(workflow_def=flow(*tasks), framework="prefect", work_pool=pool)
        await _there(trace)
        os.kill(first.popen.pid, signal.SIGKILL)
        start_worker(**environment)
        go.touch()
        with anyio.fail_after(START_S):
            view = await service.wait(run.run_id, timeout_s=45)
        view = await service.get_run(run.run_id, detail="tasks")
        output = await service.task_output(run.run_id, "work")
        events = await service.events(run.run_id, limit=1000)
    assert view.state == "completed", view
    states = {task.name: (task.state, task.attempts) for task in view.tasks or []}
    assert states == {"before": ("completed", 1), "work": ("completed", 2)}
    assert trace.read_text().split() == ["begun", "begun"]
    assert "[secret:TOKEN]" in output  # its value was there, and is masked by the worker
    (retrying,) = (event for event in events if event.type == "task.retrying")
    assert "no sign of life" in str(retrying)


async def test_a_run_goes_on_where_it_was_when_its_server_comes_back(
    service: FlowService, pool: str, start_worker: Start, server: PrefectServer, tmp_path: Path
) -> None:
    trace, go = tmp_path / "trace", tmp_path / "go"
    script = f"echo begun >> {trace}; while ! test -e {go}; do sleep 0.1; done; echo done"
    start_worker(CONTEXTEN_FLOW_ALLOW_COMMANDS="sh")
    await _online(server, pool)
    async with service:
        run = await service.execute_flow(workflow_def=flow(shell("work", script)), framework="prefect", work_pool=pool)
        await _there(trace)
    go.touch()
    async with FlowService(service.settings) as again:
        with anyio.fail_after(START_S):
            await again.wait(run.run_id, timeout_s=45)
        view = await again.get_run(run.run_id, detail="output")
    assert view.state == "completed"
    assert view.output["work"]["stdout"] == "done\n"
    assert trace.read_text().split() == ["begun"]  # found again, not repeated
    found = await anyio.to_thread.run_sync(
        server.ask, "/flow_runs/filter", {"flow_runs": {"tags": {"all_": [f"run:{run.run_id}"]}}}
    )
    assert [flow_run["state"]["type"] for flow_run in found] == ["COMPLETED"]


async def test_a_cancelled_run_ends_its_work_on_the_worker(
    service: FlowService, server: PrefectServer, pool: str, start_worker: Start, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    script = f"trap 'echo ended >> {trace}.end; exit 1' TERM; echo begun >> {trace}; while :; do sleep 0.1; done"
    start_worker(CONTEXTEN_FLOW_ALLOW_COMMANDS="sh")
    await _online(server, pool)
    async with service:
        run = await service.execute_flow(workflow_def=flow(shell("work", script)), framework="prefect", work_pool=pool)
        await _there(trace)
        await service.control(run.run_id, "cancel")
        with anyio.fail_after(START_S):
            await service.wait(run.run_id, timeout_s=45)
        assert (await service.get_run(run.run_id)).state == "cancelled"
        await _there(Path(f"{trace}.end"))


async def test_a_worker_ends_in_order_when_it_is_asked_to(
    server: PrefectServer, pool: str, start_worker: Start
) -> None:
    worker = start_worker()
    await _online(server, pool)
    worker.popen.terminate()
    assert await anyio.to_thread.run_sync(worker.popen.wait, 15) == 0
    assert _workers(server, pool) == []


def test_a_worker_without_an_api_says_what_to_set(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contexten_server", "worker", "--pool", "any"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "PREFECT_API_URL" in done.stderr
    assert done.stdout == ""


def test_a_worker_says_that_the_api_is_away_and_ends_all_the_same(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "contexten_server", "worker", "--pool", "any"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        },
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stderr is not None
        while "goes on asking" not in (line := worker.stderr.readline()):
            assert line, "it ended without saying so"
        worker.terminate()
        assert worker.wait(30) == 0


@pytest.mark.slow
async def test_a_worker_of_prefects_own_makes_attempts_too(
    server: PrefectServer, pool: str, start_worker: Start, agent: AbstractAsyncContextManager[PoolAgent]
) -> None:
    program = ("prefect", "worker", "start", "--type", "process")
    worker = start_worker(program=program, CONTEXTEN_FLOW_ALLOW_COMMANDS="sh", PREFECT_CLI_PROMPT="false")
    await _online(server, pool)
    async with agent as it:
        with anyio.fail_after(2 * START_S):
            output = await it.run(call("shell", parameters={"argv": ["sh", "-c", "echo hello"]}), about())
    assert output["stdout"] == "hello\n", worker.log.read_text()


@pytest.mark.slow
async def test_attempts_are_made_through_a_server_on_sqlite(
    prefect_server: PrefectServer, pool: str, start_worker: Start
) -> None:
    start_worker(url=prefect_server.url)
    await _online(prefect_server, pool)
    async with submitting(prefect_server.url, pool) as it:
        with anyio.fail_after(START_S):
            assert await it.run(call("json_parser", parameters={"text": "[1]"}), about()) == [1]


@dataclass
class Namespace:
    """A network of its own whose only neighbour is this machine."""

    name: str
    host: str
    address: str


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    """Two of them. Skips where they cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    made: list[Namespace] = []
    try:
        for number in (1, 2):
            tag = uuid4().hex[:6]
            space = Namespace(f"flow-{tag}", f"10.213.{number}.1", f"10.213.{number}.2")
            outer, inner = f"fo{tag}", f"fi{tag}"
            commands = (
                f"netns add {space.name}",
                f"link add {outer} type veth peer name {inner} netns {space.name}",
                f"addr add {space.host}/30 dev {outer}",
                f"link set {outer} up",
                f"-n {space.name} addr add {space.address}/30 dev {inner}",
                f"-n {space.name} link set {inner} up",
            )
            made.append(space)
            for command in commands:
                done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
                if done.returncode != 0:
                    pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")
        yield made
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "del", space.name], capture_output=True)


@asynccontextmanager
async def _door(host: str, url: str) -> AsyncIterator[str]:
    """The API at an address of this machine, by a plain relay; its URL there."""
    target = httpx.URL(url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(target.host, target.port)
        await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))

    server = await asyncio.start_server(relay, host, 0)
    try:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/api"
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_workers_in_networks_of_their_own_share_nothing_but_the_address_of_the_api(
    service: FlowService, server: PrefectServer, pool: str, start_worker: Start, namespaces: list[Namespace]
) -> None:
    script = "ip -o -4 addr show; sleep 3"  # one worker is busy while the other takes the second task
    async with _door(namespaces[0].host, server.url) as first, _door(namespaces[1].host, server.url) as second:
        for space, url in zip(namespaces, (first, second), strict=True):
            prefix = ("ip", "netns", "exec", space.name)
            start_worker("--concurrency", "1", prefix=prefix, url=url, CONTEXTEN_FLOW_ALLOW_COMMANDS="sh")
        await _online(server, pool, 2)
        async with service:
            definition = flow(shell("one", script), shell("two", script), mode="parallel")
            with anyio.fail_after(START_S):
                run = await service.run_flow(workflow_def=definition, framework="prefect", work_pool=pool)
    assert run.state == "completed", run
    seen = [run.output[task]["stdout"] for task in ("one", "two")]
    assert sorted(sum(space.address in text for text in seen) for space in namespaces) == [1, 1], seen
