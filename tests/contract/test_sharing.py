"""Another process on the same database: it sees everything, may ask for anything, and is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.answers.reading import Answers
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.live.feed import Feed
from contexten.extensions.flow.live.watching import Watchers
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store import Event, Store, Transaction

pytestmark = pytest.mark.anyio

HOLD = {"stages": [{"name": "s", "tasks": [{"name": "held", "type": "test", "required_tools": ["work"]}]}]}
CHATTER = {
    "stages": [
        {
            "name": "s",
            "tasks": [
                {"name": f"t{n}", "type": "test", "required_tools": ["work"], "parameters": {"quick": True}}
                for n in range(20)
            ],
        }
    ]
}


class Holder:
    """Holds its tasks until they are cancelled or it is opened."""

    name = "holder"
    agent_type = "test"
    tools = ("work",)
    capacity = 100

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.reached = anyio.Event()

    async def run(self, task: Any, context: Any) -> int:
        if not task.parameters.get("quick"):
            self.reached.set()
            await self.open.wait()
        return 1


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
async def driver(database: Path, holder: Holder) -> AsyncIterator[FlowService]:
    settings = FlowSettings(database=database, stop_grace_s=0.1, cancel_grace_s=0.2)
    async with FlowService(settings, agents=[holder], holder="the driver") as service:
        yield service


@pytest.fixture(params=[False, True], ids=["asks", "drives"])
async def guest(
    driver: FlowService, database: Path, holder: Holder, request: pytest.FixtureRequest
) -> AsyncIterator[FlowService]:
    """A service with connections of its own, as another process has; it asks only, or is a server too."""
    settings = FlowSettings(database=database, stop_grace_s=0.1, cancel_grace_s=0.2)
    async with FlowService(settings, agents=[holder], drive=request.param) as service:
        yield service


async def chatter(driver: FlowService, stop: anyio.Event) -> None:
    """Commit all the time, so that entries of others never stand last in the journal for long."""
    while not stop.is_set():
        run = await driver.execute_flow(workflow_def=CHATTER)
        await driver.wait(run.run_id)


async def test_a_guest_sees_what_the_driver_does(driver: FlowService, guest: FlowService, holder: Holder) -> None:
    run = await driver.execute_flow(workflow_def=HOLD)
    with anyio.fail_after(30):
        await holder.reached.wait()
        assert (await guest.get_run(run.run_id)).state == "running"
        holder.open.set()
        assert (await guest.wait(run.run_id)).state == "completed"


@pytest.mark.parametrize("is_busy", [False, True], ids=["quiet", "busy"])
async def test_a_guest_can_cancel(driver: FlowService, guest: FlowService, holder: Holder, is_busy: bool) -> None:
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        if is_busy:
            group.start_soon(chatter, driver, stop)
        for _ in range(3):
            run = await driver.execute_flow(workflow_def=HOLD)
            with anyio.fail_after(30):
                await holder.reached.wait()
                await guest.control(run.run_id, "cancel")
                assert (await guest.wait(run.run_id)).state == "cancelled"
        stop.set()


@pytest.mark.parametrize("is_busy", [False, True], ids=["quiet", "busy"])
async def test_a_guest_can_submit_and_the_driver_runs_it(
    driver: FlowService, guest: FlowService, holder: Holder, is_busy: bool
) -> None:
    holder.open.set()
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        if is_busy:
            group.start_soon(chatter, driver, stop)
        for _ in range(3):
            with anyio.fail_after(30):
                run = await guest.execute_flow(workflow_def=HOLD)
                assert (await guest.wait(run.run_id)).state == "completed"
        stop.set()


async def test_a_guest_can_pause_and_resume_again_and_again(
    driver: FlowService, guest: FlowService, holder: Holder
) -> None:
    run = await driver.execute_flow(workflow_def=HOLD)
    with anyio.fail_after(30):
        await holder.reached.wait()
        for _ in range(3):  # while the attempt is in flight it does not pause, and the request is withdrawn
            await guest.control(run.run_id, "pause")
            await guest.control(run.run_id, "resume")
        await driver.control(run.run_id, "pause")
        await driver.control(run.run_id, "resume")
        holder.open.set()
        assert (await driver.wait(run.run_id)).state == "completed"


async def test_listeners_hear_of_each_change_once_in_order(
    driver: FlowService, guest: FlowService, holder: Holder
) -> None:
    heard: list[str] = []
    stop_listening = driver.subscribe(lambda change: heard.append(str(change)))
    holder.open.set()
    with anyio.fail_after(20):
        for _ in range(5):
            run = await guest.execute_flow(workflow_def=HOLD)
            await driver.wait(run.run_id)
    stop_listening()
    assert heard
    assert (await driver.verify()).ok


async def test_one_look_hears_all_that_others_wrote(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contexten.extensions.flow.live.feed.PAGE", 3)
    heard: list[Event] = []

    async def on_foreign(events: list[Event]) -> None:
        heard.extend(events)

    clock = SystemClock()
    answers = Answers(store, clock, lambda: None)
    feed = Feed(
        store=store,
        clock=clock,
        answers=answers,
        watchers=Watchers(),
        on_foreign=on_foreign,
        conductor=lambda: None,
    )
    await feed.begin()
    other = Store(store.path)
    await other.open()
    for number in range(10):
        await other.write(partial(Transaction.event, type="flow.updated", at=float(number)))
    await other.close()
    await feed._look()
    assert [event.at for event in heard] == [float(number) for number in range(10)]
    await feed._look()
    assert len(heard) == 10


async def test_without_a_driver_a_guest_says_that_nobody_runs_it(database: Path, holder: Holder) -> None:
    async with FlowService(FlowSettings(database=database), agents=[holder], drive=False) as guest:
        run = await guest.execute_flow(workflow_def=HOLD)
        view = await guest.get_run(run.run_id)
        assert view.state == "scheduled"
        assert "no server" in (view.note or "")
        assert (await guest.control(run.run_id, "cancel")).state == "cancelled"


async def test_runs_claimed_while_the_service_closes_are_given_back(database: Path, holder: Holder) -> None:
    settings = FlowSettings(database=database, stop_grace_s=0.0)
    async with FlowService(settings, agents=[holder], drive=False) as guest:
        for _ in range(3):
            await guest.execute_flow(workflow_def=HOLD)
    with anyio.fail_after(20):
        for _ in range(10):
            async with FlowService(settings, agents=[holder]) as driver:
                pass
            async with FlowService(settings, drive=False) as guest:
                rows = await guest._store.rows("SELECT state, owner FROM runs")
                assert all(row["owner"] is None for row in rows), [tuple(row) for row in rows]
        holder.open.set()
        async with FlowService(settings, agents=[holder]) as driver:
            for run in (await driver.list_runs()).runs:
                assert (await driver.wait(run.run_id)).state == "completed"
            rows = await driver._store.rows("SELECT interruptions FROM tasks")
            assert {row[0] for row in rows} == {0}  # nobody crashed
            assert (await driver.verify()).ok
