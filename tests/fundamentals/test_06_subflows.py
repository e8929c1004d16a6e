"""A task of type flow runs another flow, and its output is that run's output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowError, FlowService, FlowSettings
from contexten.extensions.flow.errors import AttemptError

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

DOUBLE = {
    "id": "double",
    "inputs": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
    "stages": [{"name": "only", "tasks": [{"name": "twice", "parameters": {"n": "{{ inputs.n * 2 }}"}}]}],
    "output": "{{ tasks.twice.output.n }}",
}


def calling(flow_id: str, inputs: Any = None, **fields: Any) -> dict[str, Any]:
    call = {"name": "call", "type": "flow", "parameters": {"flow_id": flow_id, "inputs": inputs or {}}, **fields}
    return {"stages": [{"name": "only", "tasks": [call]}]}


def held(flow_id: str) -> dict[str, Any]:
    return {
        "id": flow_id,
        "stages": [{"name": "only", "tasks": [{"name": "hold", "type": "t", "required_tools": ["gate"]}]}],
    }


async def test_a_sub_flow_gets_inputs_and_gives_its_output(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(workflow_def=DOUBLE)
        run = await end_of(flows, (await flows.execute_flow(workflow_def=calling("double", {"n": 21}))).run_id)
        child = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
        assert child[0].child_run_id is not None
        child_run = await flows.get_run(child[0].child_run_id)
    assert run.output == {"call": 42}
    assert (child_run.flow_id, child_run.parent_run_id) == ("double", run.run_id)


async def test_sub_flows_run_for_each_item_and_share_their_parents_slot(settings: FlowSettings, end_of: EndOf) -> None:
    one_slot = settings.model_copy(update={"max_concurrent_flows": 1})
    async with FlowService(one_slot) as flows:
        await flows.create_flow(workflow_def=DOUBLE)
        flow = calling("double", {"n": "{{ item }}"}, for_each=[1, 2, 3])
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.output == {"call": [2, 4, 6]}


async def test_a_failed_sub_flow_fails_its_task_with_the_cause(settings: FlowSettings, end_of: EndOf) -> None:
    async def broken(task: object) -> None:
        raise AttemptError("no such city", kind="invalid")

    failing = {
        "id": "failing",
        "stages": [{"name": "s", "tasks": [{"name": "t", "type": "x", "required_tools": ["broken"]}]}],
    }
    async with FlowService(settings, agents=[broken]) as flows:
        await flows.create_flow(workflow_def=failing)
        run = await end_of(flows, (await flows.execute_flow(workflow_def=calling("failing"))).run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.kind == "invalid"
    assert "no such city" in run.error.message


async def test_inputs_that_do_not_fit_fail_the_task(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(workflow_def=DOUBLE)
        flow = calling("double", {"n": "{{ inputs.n }}"})
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow, inputs={"n": "x"})).run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert "do not fit flow 'double'" in run.error.message


async def test_a_flow_that_would_call_itself_is_refused(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="outer", workflow_def=DOUBLE | {"id": "outer"})
        await flows.create_flow(flow_id="inner", workflow_def=calling("outer", {"n": 1}))
        with pytest.raises(FlowError) as caught:
            await flows.update_flow("outer", workflow_def=calling("inner"))
    assert "outer" in caught.value.issues[0].message


async def test_cancel_reaches_sub_flows(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        await flows.create_flow(workflow_def=held("held"))
        run = await flows.execute_flow(workflow_def=calling("held"))
        with anyio.fail_after(30):
            await gate.reached.wait()
        await flows.control(run.run_id, "cancel")
        ended = await end_of(flows, run.run_id)
        states = {view.flow_id: view.state for view in (await flows.list_runs()).runs}
    assert ended.state == "cancelled"
    assert set(states.values()) == {"cancelled"}


async def test_pause_reaches_sub_flows_and_resume_lets_them_go_on(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    two = held("two")
    two["stages"][0]["tasks"].append({"name": "after", "type": "t", "required_tools": ["gate"]})
    async with FlowService(settings, agents=[gate]) as flows:
        await flows.create_flow(workflow_def=two)
        run = await flows.execute_flow(workflow_def=calling("two"))
        with anyio.fail_after(30):
            await gate.reached.wait()
            await flows.control(run.run_id, "pause")
            gate.opened.set()
            while (run := await flows.get_run(run.run_id)).state != "paused":
                await flows.wait(run.run_id, until="change", since=run.cursor)
        assert gate.passed == ["hold"]
        assert {view.state for view in (await flows.list_runs()).runs} == {"paused"}
        await flows.control(run.run_id, "resume")
        ended = await end_of(flows, run.run_id)
        report = await flows.verify()
    assert ended.state == "completed"
    assert gate.passed == ["hold", "after"]
    assert report.ok, report.problems
