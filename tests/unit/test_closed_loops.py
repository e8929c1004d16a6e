"""An event loop may end before what was opened on it: the next one takes over, and the process ends."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Coroutine
from contextlib import closing
from threading import Event
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowManager, FlowOrchestrator, FlowScheduler, FlowSettings

FLOW: dict[str, Any] = {
    "id": "flow",
    "stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["json_parser"], "parameters": {"text": "1"}}]}],
}


def bounded(step: Coroutine[Any, Any, Any]) -> Any:
    """What the step answers, on a loop of its own that is closed properly."""

    async def within() -> Any:
        with anyio.fail_after(20):
            return await step

    return asyncio.run(within())


def test_each_asyncio_run_may_use_the_same_manager(settings: FlowSettings) -> None:
    manager = FlowManager(settings=settings)
    bounded(manager.create_flow(workflow_def=FLOW))
    for _ in range(2):
        assert bounded(manager.execute_flow("flow"))["output"] == {"t": 1}
    assert len(bounded(manager.list_flows("completed", kind="runs"))) == 2
    bounded(manager.start())
    bounded(manager.aclose())
    assert bounded(manager.execute_flow("flow"))["state"] == "completed"


def test_what_was_started_in_one_asyncio_run_is_used_in_the_next(settings: FlowSettings) -> None:
    orchestrator, scheduler = FlowOrchestrator(settings=settings), FlowScheduler(settings=settings)
    bounded(orchestrator.start())
    bounded(scheduler.start())
    assert not orchestrator.is_open
    assert scheduler.get_scheduler_status()["running"] is False
    assert bounded(orchestrator.execute_flow_sync(workflow_def=FLOW))["state"] == "completed"
    assert bounded(scheduler.schedule_flow(FLOW))["flow_id"] == "flow"
    bounded(orchestrator.aclose())


def test_using_it_on_two_loops_at_once_is_refused(settings: FlowSettings) -> None:
    manager = FlowManager(settings=settings)
    is_open, is_done = Event(), Event()

    async def elsewhere() -> None:
        await manager.start()
        is_open.set()
        await asyncio.to_thread(is_done.wait, 20)
        await manager.aclose()

    async def here() -> None:
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        await asyncio.to_thread(is_open.wait, 20)
        try:
            with pytest.raises(RuntimeError, match="another event loop"):
                await manager.list_flows()
        finally:
            is_done.set()
            await other
        assert await manager.list_flows() == []
        await manager.aclose()

    bounded(here())


def run_program(program: str, settings: FlowSettings, *arguments: str) -> str:
    """What it prints. Its event loop is cut off: Python complains on its standard error of what it destroys then."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(settings.database), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TAKEN_OVER = """
import asyncio, sys
from contexten.extensions.flow import FlowManager, FlowOrchestrator, FlowSettings
from contexten.extensions.flow.store.servers import drivers_of

HELD = {"stages": [{"name": "s", "tasks": [{"name": "t", "type": "hold"}]}]}
settings = FlowSettings(database=sys.argv[1], lease_ttl_s=3600)
reached, lets_go = asyncio.Event(), False

async def held(task, context):
    reached.set()
    if not lets_go:
        await asyncio.get_running_loop().create_future()

orchestrator = FlowOrchestrator([held], settings=settings)

async def begin():
    run = await orchestrator.submit_flow(workflow_def=HELD)
    await reached.wait()
    return run["run_id"]

async def go_on():
    run = await (await orchestrator.service()).wait(run_id, timeout_s=20)
    print(run.state, len(drivers_of(settings.database)))

def cut_off(step):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(step)
    finally:
        loop.close()

run_id = cut_off(begin())
lets_go = True
asyncio.run(go_on())

manager = FlowManager(settings=settings)
cut_off(manager.start())
print(manager.is_open, len(drivers_of(settings.database)))
asyncio.run(manager.aclose())
print(len(drivers_of(settings.database)))
"""


def test_runs_of_a_loop_that_was_cut_off_are_taken_over_at_once(settings: FlowSettings) -> None:
    assert run_program(TAKEN_OVER, settings).splitlines() == ["completed 1", "False 1", "0"]


CUT_OFF = """
import asyncio, sys
from contexten.extensions.flow import FlowManager, FlowSettings
from contexten.extensions.flow.store.sql import SQL

manager = FlowManager(settings=FlowSettings(database=sys.argv[1]))

async def work():
    service = await manager.service()
    await service.execute_flow(flow_id=(await manager.create_flow(workflow_def=%r))["flow_id"])
    for number in range(2000):  # handed over in the last turn of the loop, and acknowledged to nobody yet
        service._store.submit(lambda tx, n=number: tx.execute(SQL["put_setting"], (f"k{n}", "1")), lambda *_: None)

loop = asyncio.new_event_loop()
loop.run_until_complete(work())
if sys.argv[2] == "closed":
    loop.close()
print("the end", flush=True)
"""


@pytest.mark.parametrize("loop", ["closed", "left open"])
def test_a_process_ends_that_left_all_open_and_loses_nothing(settings: FlowSettings, loop: str) -> None:
    assert run_program(CUT_OFF % FLOW, settings, loop) == "the end\n"
    with closing(sqlite3.connect(settings.database)) as connection:
        assert connection.execute("SELECT count(*) FROM settings WHERE key LIKE 'k%'").fetchone() == (2000,)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
