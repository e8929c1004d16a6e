"""What the whole looks like: sub-flows hold no slot, and looking at everything holds nothing up."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowScheduler, FlowService, FlowSettings
from contexten.extensions.flow.errors import Closing

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

WORK: dict[str, Any] = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["gate"]}]}]}


async def test_sub_flows_count_as_no_runs_of_the_scheduler(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    tasks = [{"name": f"t{number}", "type": "flow", "parameters": {"flow_id": "child"}} for number in range(3)]
    parent = {"stages": [{"name": "s", "execution_mode": "parallel", "tasks": tasks}]}
    async with FlowService(settings, agents=[gate]) as flows:
        await flows.create_flow(workflow_def=WORK, flow_id="child")
        run = await flows.execute_flow(workflow_def=parent)
        with anyio.fail_after(10):
            while flows.registry.running < 3:
                await anyio.lowlevel.checkpoint()
        view = await flows.scheduler()
        assert (view.running, view.queued, view.waiting) == (1, 0, 0)
        assert FlowScheduler(settings=settings).get_scheduler_status()["running_flows"] == 1
        gate.opened.set()
        await end_of(flows, run.run_id)
        figures = await flows.metrics()
    assert figures.flows["runs_by_state"] == {"completed": 1}
    assert figures.tasks["tasks_by_state"] == {"completed": 6}
    assert figures.tasks["attempts"] == 6


async def test_the_scheduler_tells_the_strategy_in_force_while_a_server_lives(settings: FlowSettings) -> None:
    def told() -> str:
        return str(FlowScheduler(settings=settings).get_scheduler_status()["strategy"])

    assert told() == "fifo"
    async with FlowService(settings.model_copy(update={"strategy": "priority"})):
        assert told() == "priority"
    assert told() == "fifo"


async def test_the_load_of_the_machine_is_that_of_the_last_second(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([40.0, 0.0, 0.0])
    monkeypatch.setattr("psutil.cpu_percent", lambda: next(asked))
    scheduler = FlowScheduler(settings=settings)
    loads = [scheduler.get_scheduler_status()["system_load"] for _ in range(2)]
    assert loads == [40.0, 40.0]


async def test_a_long_look_at_everything_holds_no_other_read_up(settings: FlowSettings) -> None:
    reached, release = threading.Event(), threading.Event()

    def linger() -> int:
        reached.set()
        release.wait(10)
        return 1

    async with FlowService(settings) as flows:
        await flows.metrics()
        store = flows._store
        assert store._surveyor is not None
        await store._surveyor.create_function("linger", 0, linger)
        survey = asyncio.create_task(store.survey("SELECT linger()"))
        try:
            with anyio.fail_after(5):
                await asyncio.to_thread(reached.wait)
                assert (await flows.scheduler()).running == 0
                assert not survey.done()
        finally:
            release.set()
        assert [tuple(row) for row in await survey] == [(1,)]
    with pytest.raises(Closing):
        await store.survey("SELECT 1")
