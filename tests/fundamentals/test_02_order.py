"""What comes before what: sequential and parallel stages, dependencies within and across them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


class Recorder:
    """An agent that remembers the order in which tasks came to it."""

    capacity = 10
    tools = ("record",)

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> None:
        self.seen.append(task.name)


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "test", "required_tools": ["record"], **fields}


async def test_sequential_tasks_run_one_after_another(settings: FlowSettings, end_of: EndOf) -> None:
    recorder = Recorder()
    flow = {"stages": [{"name": "only", "tasks": [record("first"), record("second"), record("third")]}]}
    async with FlowService(settings, agents=[recorder]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.state == "completed"
    assert recorder.seen == ["first", "second", "third"]


async def test_tasks_of_a_parallel_stage_run_side_by_side(settings: FlowSettings, end_of: EndOf) -> None:
    met = anyio.Event()
    arrived: set[str] = set()

    async def meet(task: TaskCall) -> None:
        arrived.add(task.name)
        if len(arrived) == 2:
            met.set()
        await met.wait()  # each waits for the other: only possible side by side

    meet.capacity = 2  # type: ignore[attr-defined]  # a function says its capacity as an attribute
    both = [{"name": name, "type": "test", "required_tools": ["meet"]} for name in ("left", "right")]
    flow = {"stages": [{"name": "only", "execution_mode": "parallel", "tasks": both}]}
    async with FlowService(settings, agents=[meet]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.state == "completed"


async def test_a_stage_waits_for_the_stage_before_it(settings: FlowSettings, end_of: EndOf) -> None:
    recorder = Recorder()
    flow = {
        "stages": [
            {"name": "load", "execution_mode": "parallel", "tasks": [record("a"), record("b")]},
            {"name": "report", "tasks": [record("c")]},
        ]
    }
    async with FlowService(settings, agents=[recorder]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert recorder.seen[2] == "c"


async def test_stages_that_depend_on_none_begin_at_once(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    recorder = Recorder()
    flow = {
        "stages": [
            {"name": "slow", "tasks": [{"name": "hold", "type": "test", "required_tools": ["gate"]}]},
            {"name": "free", "depends_on": [], "tasks": [record("quick")]},
            {"name": "last", "depends_on": ["slow", "free"], "tasks": [record("after_both")]},
        ]
    }
    async with FlowService(settings, agents=[recorder, gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow)
        with anyio.fail_after(30):
            while "quick" not in recorder.seen:
                run = await flows.wait(run.run_id, until="change", since=run.cursor)
        assert not gate.passed
        gate.opened.set()
        await end_of(flows, run.run_id)
    assert recorder.seen == ["quick", "after_both"]


async def test_a_task_may_depend_on_tasks_and_stages_by_name(settings: FlowSettings, end_of: EndOf) -> None:
    recorder = Recorder()
    flow = {
        "stages": [
            {
                "name": "work",
                "execution_mode": "parallel",
                "tasks": [
                    record("third", depends_on=["second"]),
                    record("second", depends_on=["first"]),
                    record("first"),
                ],
            },
            {"name": "end", "depends_on": [], "tasks": [record("fourth", depends_on=["stage:work"])]},
        ]
    }
    async with FlowService(settings, agents=[recorder]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert recorder.seen == ["first", "second", "third", "fourth"]


async def test_max_parallel_bounds_how_many_tasks_of_a_stage_run_at_once(settings: FlowSettings, end_of: EndOf) -> None:
    running = most = 0

    async def count(task: TaskCall) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1

    count.capacity = 10  # type: ignore[attr-defined]  # a function says its capacity as an attribute
    tasks = [{"name": f"t{number}", "type": "test", "required_tools": ["count"]} for number in range(7)]
    flow = {"stages": [{"name": "only", "execution_mode": "parallel", "max_parallel": 2, "tasks": tasks}]}
    async with FlowService(settings, agents=[count]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.progress.completed == 7
    assert most == 2


async def test_an_agent_never_gets_more_tasks_at_once_than_its_capacity(settings: FlowSettings, end_of: EndOf) -> None:
    running = most = 0

    async def single(task: TaskCall) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1

    tasks: list[dict[str, Any]] = [
        {"name": f"t{number}", "type": "test", "required_tools": ["single"]} for number in range(5)
    ]
    tasks.append({"name": "each", "type": "test", "required_tools": ["single"], "for_each": [1, 2, 3]})
    flow = {"stages": [{"name": "only", "execution_mode": "parallel", "tasks": tasks}]}
    async with FlowService(settings, agents=[single]) as flows:
        runs = [await flows.execute_flow(workflow_def=flow) for _ in range(3)]
        assert [(await end_of(flows, run.run_id)).state for run in runs] == ["completed"] * 3
    assert most == 1


async def test_a_cycle_is_refused_and_printed() -> None:
    flow = {
        "stages": [
            {
                "name": "only",
                "execution_mode": "parallel",
                "tasks": [{"name": "egg", "depends_on": ["hen"]}, {"name": "hen", "depends_on": ["egg"]}],
            }
        ]
    }
    async with FlowService() as flows:
        with pytest.raises(Exception, match="egg -> hen -> egg"):
            await flows.create_flow(workflow_def=flow)
