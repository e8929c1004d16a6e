"""A disk that fails while runs are under way: nothing is lost or done twice, and they go on when it is back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.errors import StoreError
from contexten.extensions.flow.execution import conductor as conductor_module
from contexten.extensions.flow.execution import intake as intake_module
from contexten.extensions.flow.execution import run as run_module
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

from .conftest import FAULTS, Disk

pytestmark = pytest.mark.anyio


class Gate:
    """An agent that counts what it does and waits where it is told to."""

    name = "gate"
    agent_type = "test"
    tools = ("work",)
    capacity = 100

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.open = anyio.Event()
        self.reached = anyio.Event()

    async def run(self, task: Any, context: Any) -> Any:
        self.done[context.task] += 1
        if task.parameters.get("gate"):
            self.reached.set()
            await self.open.wait()
        return context.task


def work(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "type": "test", "required_tools": ["work"], "parameters": parameters}


CHILD = {"stages": [{"name": "c", "tasks": [work("inner")]}]}
FLOW = {
    "stages": [
        {
            "name": "s",
            "tasks": [
                work("first", gate=True),
                work("second"),
                {"name": "sub", "type": "flow", "parameters": {"flow_id": "child"}},
                {"name": "pause", "type": "wait", "parameters": {"seconds": 0.06}},
                work("last"),
            ],
        }
    ]
}


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def service(
    disk: Disk, database: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FlowService]:
    monkeypatch.setattr(run_module, "STORE_RETRY_S", 0.005)
    monkeypatch.setattr(conductor_module, "TAKE_BACK_S", 0.005)
    monkeypatch.setattr(intake_module, "RETRY_S", 0.005)
    async with FlowService(FlowSettings(database=database, stop_grace_s=0.1), agents=[gate]) as service:
        await service.create_flow(flow_id="child", workflow_def=CHILD)
        yield service
        disk.fault = None


async def failures(disk: Disk, at_least: int) -> None:
    """Until that many commits have failed."""
    goal = disk.failures + at_least
    with anyio.fail_after(20):
        while disk.failures < goal:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_run_goes_on_when_the_disk_is_back(disk: Disk, service: FlowService, gate: Gate, fault: str) -> None:
    run = await service.execute_flow(workflow_def=FLOW)
    with anyio.fail_after(20):
        await gate.reached.wait()
        disk.fault = fault
        gate.open.set()  # its result cannot be recorded now
        await failures(disk, 3)
        assert gate.done == {"first": 1}  # what follows has not begun: its start is not durable
        with pytest.raises(StoreError):
            await service.execute_flow(workflow_def=FLOW)
        disk.fault = None
        ended = await service.wait(run.run_id)
    assert ended.state == "completed"
    assert gate.done == {"first": 1, "second": 1, "inner": 1, "last": 1}
    assert (await service.verify()).ok


async def test_a_run_survives_a_fault_at_each_of_its_commits(disk: Disk, service: FlowService, gate: Gate) -> None:
    """Every second commit fails, whatever it carries."""
    gate.open.set()
    number = 0

    def flicker(sql: str) -> None:
        nonlocal number
        if sql.startswith("COMMIT"):
            number += 1
            disk.fault = "io" if number % 2 else None

    run = await service.execute_flow(workflow_def=FLOW)
    disk.watch = flicker
    with anyio.fail_after(20):
        ended = await service.wait(run.run_id)
    disk.watch = lambda sql: None
    disk.fault = None
    assert ended.state == "completed"
    assert disk.failures > 3
    assert gate.done == {"first": 1, "second": 1, "inner": 1, "last": 1}
    assert (await service.verify()).ok


async def test_a_submission_that_could_not_be_recorded_leaves_no_run_and_no_slot_taken(
    disk: Disk, service: FlowService, gate: Gate
) -> None:
    gate.open.set()
    await service.create_flow(flow_id="f", workflow_def=FLOW)
    disk.fault = "full"
    for _ in range(3):
        with pytest.raises(StoreError):
            await service.execute_flow(flow_id="f")
    disk.fault = None
    assert (await service.list_runs()).runs == []
    await service.set_strategy(max_concurrent_flows=1)
    run = await service.execute_flow(flow_id="f")
    with anyio.fail_after(20):
        assert (await service.wait(run.run_id)).state == "completed"
    assert gate.done["first"] == 1


async def test_a_request_that_could_not_be_recorded_did_not_happen(
    disk: Disk, service: FlowService, gate: Gate
) -> None:
    run = await service.execute_flow(workflow_def=FLOW)
    with anyio.fail_after(20):
        await gate.reached.wait()
        disk.fault = "io"
        with pytest.raises(StoreError):
            await service.control(run.run_id, "cancel")
        disk.fault = None
        gate.open.set()
        assert (await service.wait(run.run_id)).state == "completed"


async def test_a_service_closes_in_time_although_the_disk_is_gone(
    disk: Disk, database: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "STORE_RETRY_S", 0.005)
    with anyio.fail_after(20):
        settings = FlowSettings(database=database, stop_grace_s=0.05)
        async with FlowService(settings, agents=[gate]) as service:
            await service.create_flow(flow_id="child", workflow_def=CHILD)
            run = await service.execute_flow(workflow_def=FLOW)
            await gate.reached.wait()
            disk.fault = "io"
            gate.open.set()
            await failures(disk, 2)
        disk.fault = None
        async with FlowService(settings, agents=[gate]) as service:
            assert (await service.wait(run.run_id)).state == "completed"
            assert (await service.verify()).ok
    assert gate.done["first"] == 2  # its result could not be recorded: it was run again
    assert gate.done["second"] == 1


async def test_a_file_that_was_removed_or_replaced_takes_nothing_more(database: Path) -> None:
    flow = {"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}
    async with FlowService(FlowSettings(database=database)) as flows:
        first = await flows.execute_flow(workflow_def=flow)
        await flows.wait(first.run_id)
        kept = database.with_suffix(".kept")
        database.rename(kept)
        with pytest.raises(StoreError, match="removed or replaced"):
            await flows.execute_flow(workflow_def=flow)
        kept.rename(database)
        second = await flows.execute_flow(workflow_def=flow)
        assert (await flows.wait(second.run_id)).state == "completed"
