"""Pausing, resuming and cancelling runs with sub-flows, for which everything is asked of the parent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio


class Gates:
    """Each task waits for its own gate; `begun` tells which have come to theirs."""

    name = "gates"
    agent_type = "test"
    tools = ("work",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.gates: dict[str, anyio.Event] = {}
        self.begun: list[str] = []
        self.changed = anyio.Event()

    async def run(self, task: Any, context: Any) -> str:
        self.begun.append(context.task)
        self.changed.set()
        self.changed = anyio.Event()
        await self.gates.setdefault(context.task, anyio.Event()).wait()
        return str(context.task)

    def open(self, *tasks: str) -> None:
        for task in tasks:
            self.gates.setdefault(task, anyio.Event()).set()

    async def until(self, task: str) -> None:
        while task not in self.begun:
            await self.changed.wait()


def work(name: str) -> dict[str, Any]:
    return {"name": name, "type": "test", "required_tools": ["work"]}


def wait(name: str, seconds: float) -> dict[str, Any]:
    return {"name": name, "type": "wait", "parameters": {"seconds": seconds}}


def flow(*tasks: dict[str, Any], mode: str = "sequential") -> dict[str, Any]:
    return {"stages": [{"name": "s", "execution_mode": mode, "tasks": list(tasks)}]}


NESTED = flow({"name": "sub", "type": "flow", "parameters": {"flow_id": "child"}}, work("behind"))


@pytest.fixture(params=[1])
def gates(request: pytest.FixtureRequest) -> Gates:
    return Gates(request.param)


@pytest.fixture
async def service(database: Path, gates: Gates) -> AsyncIterator[FlowService]:
    settings = FlowSettings(database=database, stop_grace_s=0.05, cancel_grace_s=0.5, max_retries=0)
    async with FlowService(settings, agents=[gates]) as service:
        yield service
        assert (await service.verify()).ok


async def nested(service: FlowService, child: dict[str, Any]) -> str:
    await service.create_flow(flow_id="child", workflow_def=child)
    return (await service.execute_flow(workflow_def=NESTED)).run_id


async def state(service: FlowService, run_id: str, wanted: str) -> None:
    view = await service.get_run(run_id)
    while view.state != wanted:
        view = await service.wait(run_id, until="change", since=view.cursor)


async def child_of(service: FlowService) -> str:
    return (await service.list_runs(flow_id="child")).runs[0].run_id


async def test_a_pause_does_not_wait_for_an_agent_that_a_sub_flow_waits_for(service: FlowService, gates: Gates) -> None:
    with anyio.fail_after(30):
        run_id = await nested(service, flow(work("c1"), work("c2"), mode="parallel"))
        await gates.until("c1")  # and c2 finds no free agent
        await service.control(run_id, "pause")
        gates.open("c1", "c2", "behind")
        await state(service, run_id, "paused")
        assert gates.begun == ["c1"]
        await service.control(run_id, "resume")
        assert (await service.wait(run_id)).state == "completed"
    assert gates.begun == ["c1", "c2", "behind"]


async def test_a_sub_flow_that_waits_for_an_agent_can_be_cancelled_with_its_parent(
    service: FlowService, gates: Gates
) -> None:
    with anyio.fail_after(30):
        run_id = await nested(service, flow(work("c1"), work("c2"), mode="parallel"))
        await gates.until("c1")
        await service.control(run_id, "cancel")
        assert (await service.wait(run_id)).state == "cancelled"
        assert (await service.get_run(await child_of(service))).state == "cancelled"
        views = (await service.get_run(await child_of(service), detail="tasks")).tasks or []
    assert {view.name: view.state for view in views} == {"c1": "cancelled", "c2": "cancelled"}


async def test_a_cancelled_sub_flow_fails_its_parents_task_at_once(service: FlowService, gates: Gates) -> None:
    with anyio.fail_after(30):
        run_id = await nested(service, flow(work("c1")))
        await gates.until("c1")
        await service.control(await child_of(service), "cancel")
        assert (await service.wait(run_id)).state == "failed"


async def test_a_cancelled_sub_flow_fails_its_waiting_parents_task_at_once(service: FlowService, gates: Gates) -> None:
    """Not when the sub-flow's timer would have rung."""
    with anyio.fail_after(30):
        run_id = await nested(service, flow(wait("long", 3600), work("c1")))
        await state(service, run_id, "waiting")
        child = await child_of(service)
        await service.control(child, "cancel")
        assert (await service.wait(run_id)).state == "failed"
        views = (await service.get_run(child, detail="tasks")).tasks or []
    assert {view.name: view.state for view in views} == {"long": "cancelled", "c1": "cancelled"}


async def test_cancelling_a_waiting_run_leaves_no_task_of_its_sub_flow_pending(
    service: FlowService, gates: Gates
) -> None:
    with anyio.fail_after(30):
        run_id = await nested(service, flow(wait("long", 3600), work("c1")))
        await state(service, run_id, "waiting")
        await service.control(run_id, "cancel")
        views = (await service.get_run(await child_of(service), detail="tasks")).tasks or []
    assert {view.name: view.state for view in views} == {"long": "cancelled", "c1": "cancelled"}


async def test_a_waiting_run_that_was_paused_waits_on_when_resumed(service: FlowService, gates: Gates) -> None:
    gates.open("c1", "behind")
    with anyio.fail_after(30):
        run_id = await nested(service, flow(wait("nap", 4), work("c1")))
        await state(service, run_id, "waiting")
        await service.control(run_id, "pause")
        assert (await service.get_run(run_id)).state == "paused"
        await service.control(run_id, "resume")
        assert (await service.wait(run_id)).state == "completed"
    assert gates.begun == ["c1", "behind"]


async def test_a_cancelled_parent_whose_sub_flow_clings_leaves_nothing_running(
    service: FlowService, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cling(task: Any, context: Any) -> str:
        gates.begun.append(context.task)
        gates.changed.set()
        gates.changed = anyio.Event()
        while not gates.gates.setdefault(context.task, anyio.Event()).is_set():
            try:
                await gates.gates[context.task].wait()
            except anyio.get_cancelled_exc_class():  # what an agent must not do, and does
                continue
        return "late"

    monkeypatch.setattr(gates, "run", cling)
    service.add_agents({"clinging": cling})
    child = {"stages": [{"name": "s", "tasks": [{"name": "c1", "type": "test", "required_tools": ["clinging"]}]}]}
    with anyio.fail_after(30):
        run_id = await nested(service, child)
        await gates.until("c1")
        await service.control(run_id, "cancel")
        assert (await service.wait(run_id)).state == "cancelled"
        assert (await service.get_run(await child_of(service))).state == "cancelled"
        gates.open("c1")
        while service.registry.running:
            await anyio.lowlevel.checkpoint()
