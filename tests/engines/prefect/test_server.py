"""The Prefect server of one's own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.prefect.api import PrefectApi, PrefectError
from contexten.extensions.flow.prefect.server import OwnServer

from ..prefect_servers import free_port
from .test_mirror import Worker, flow, work

pytestmark = pytest.mark.anyio


async def test_a_server_of_its_own_is_started_once_shared_taken_over_and_ended_with_its_last_owner(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = FlowSettings(database=tmp_path / "flow.sqlite3", prefect_server=True)
    home = tmp_path / "flow.sqlite3.prefect"
    home.mkdir()
    gone = {"pid": 2**22 + 1, "born_at": 1.0, "port": free_port(), "password": "old"}
    (home / "server.json").write_text(json.dumps(gone))  # of one that died
    told: list[str] = []
    first = OwnServer(home, on_progress=told.append)
    try:
        address = await first.start()
        assert (address.url, address.auth_string) == (f"http://127.0.0.1:{gone['port']}/api", "contexten:old")
        assert told[0] == "starting a Prefect server; that takes 10 to 20 s"
        assert (home / "server.json").stat().st_mode & 0o077 == 0
        refused = await anyio.to_thread.run_sync(lambda: httpx.post(f"{address.url}/flows/count", json={}))
        assert refused.status_code == 401
        pages = await anyio.to_thread.run_sync(lambda: httpx.get(f"{address.pages}/ui-settings"))
        assert pages.json()["api_url"] == address.url

        sharing = OwnServer.beside(settings.database)
        assert await sharing.start() == address
        await sharing.stop()  # it is not its own
        await PrefectApi(address).check()

        assert first._lock is not None
        assert first._process is not None
        first._lock.close()  # as the system does when a process is killed
        first._lock = None
        async with FlowService(settings, agents=[Worker()]) as flows:
            run = await flows.run_flow(workflow_def=flow(work("only")), framework="prefect")
            assert (await _link(flows, run.run_id)).startswith(f"{address.pages}/runs/flow-run/")
        with anyio.fail_after(5):
            await first._process.wait()
        with pytest.raises(PrefectError, match="cannot be reached"):
            await PrefectApi(address).check()
        assert capfd.readouterr().out == ""
    finally:
        first._look()
        await first.stop()


async def test_a_server_that_ends_while_it_starts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    server = OwnServer(tmp_path / "home")
    with pytest.raises(PrefectError, match="ended while it started"):
        await server.start()
    record = server._record()
    assert record is None or not record.is_alive()


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    """A program in the place of Python that does nothing, and writes its id into `pids` beside it."""
    program = tmp_path / "idle"
    program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    program.chmod(0o755)
    return program


async def _all_gone(pids: Path) -> None:
    with anyio.fail_after(10):
        while any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split()):  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.05)


async def test_a_server_goes_with_an_owner_that_is_killed(tmp_path: Path, idle: Path) -> None:
    program = f"""
import anyio, os, signal, sys
from pathlib import Path
from contexten.extensions.flow.prefect.server import OwnServer
home = Path({str(tmp_path / "home")!r})
async def main():
    sys.executable = {str(idle)!r}
    with anyio.fail_after(60):
        await own(home)
async def own(home):
    async with anyio.create_task_group() as group:
        group.start_soon(OwnServer(home).start)
        while not (Path({str(tmp_path)!r}, "pids").exists() and (home / "server.json").exists()):
            await anyio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""
    done = await anyio.run_process([sys.executable, "-c", program], check=False, stderr=None)
    assert done.returncode == -signal.SIGKILL
    await _all_gone(tmp_path / "pids")


async def test_a_server_whose_folder_cannot_be_written_is_ended_and_told(
    tmp_path: Path, idle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(idle))
    (tmp_path / "home" / "server.json").mkdir(parents=True)
    server = OwnServer(tmp_path / "home")
    with pytest.raises(PrefectError, match="cannot be started") as caught:
        await server.start()
    assert str(tmp_path) not in f"{caught.value.message} {caught.value.next}"
    if (tmp_path / "pids").exists():
        await _all_gone(tmp_path / "pids")
    assert server._process is None


async def _link(flows: FlowService, run_id: str) -> str:
    with anyio.fail_after(60):
        while True:
            for event in await flows.events(run_id):
                if event.type == "run.mirrored" and event.details is not None:
                    return str(event.details["url"])
            await anyio.sleep(0.1)
