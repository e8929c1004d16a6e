"""A flow is data: stages of tasks. Create it, run it, look at it."""

from __future__ import annotations

import pytest

from contexten.extensions.flow import FlowError, FlowManager

pytestmark = pytest.mark.anyio

HELLO = {
    "name": "Hello",
    "stages": [{"name": "greet", "tasks": [{"name": "hello", "parameters": {"text": "Hello, {{ inputs.who }}!"}}]}],
}


async def test_a_flow_is_created_from_data_and_run_by_its_id() -> None:
    async with FlowManager() as flows:
        flow = await flows.create_flow(name="Hello", workflow_def=HELLO)
        run = await flows.execute_flow(flow["flow_id"], inputs={"who": "world"})
    assert run["state"] == "completed"
    assert run["output"] == {"hello": {"text": "Hello, world!"}}


async def test_a_task_without_tools_gives_its_parameters_on() -> None:
    async with FlowManager() as flows:
        run = await flows.execute_flow(
            workflow_def={"stages": [{"name": "only", "tasks": [{"name": "echo", "parameters": {"n": [1, 2]}}]}]}
        )
    assert run["output"] == {"echo": {"n": [1, 2]}}


async def test_a_mistake_is_answered_with_its_place_and_a_patch_and_nothing_is_saved() -> None:
    broken = {"stages": [{"name": "greet", "tasks": [{"name": "hello", "parametres": {}}]}]}
    async with FlowManager() as flows:
        with pytest.raises(FlowError) as caught:
            await flows.create_flow(workflow_def=broken)
        assert await flows.list_flows() == []
    issue = caught.value.issues[0]
    assert issue.path == "/stages/0/tasks/0/parametres"
    assert issue.suggestion == "parameters"
    assert issue.patch


async def test_the_same_flow_again_is_the_same_flow() -> None:
    async with FlowManager() as flows:
        first = await flows.create_flow(workflow_def=HELLO)
        again = await flows.create_flow(workflow_def=HELLO)
    assert again["existing"]
    assert (again["flow_id"], again["version"]) == (first["flow_id"], 1)


async def test_a_flow_shows_the_state_of_its_latest_run() -> None:
    async with FlowManager() as flows:
        flow = await flows.create_flow(workflow_def=HELLO)
        assert (await flows.get_flow_status(flow["flow_id"]))["state"] == "idle"
        run = await flows.execute_flow(flow["flow_id"], inputs={"who": "you"})
        status = await flows.get_flow_status(flow["flow_id"])
        listed = await flows.list_flows(status_filter="completed", limit=5)
    assert (status["run_id"], status["state"]) == (run["run_id"], "completed")
    assert status["progress"] == {"completed": 1, "total": 1}
    assert [row["flow_id"] for row in listed] == [flow["flow_id"]]


async def test_a_definition_can_be_checked_without_saving_it() -> None:
    async with FlowManager() as flows:
        checked = await flows.create_flow(workflow_def=HELLO, validate_only=True)
        assert await flows.list_flows() == []
    assert checked["validate_only"]
    assert checked["plan"]["waves"] == [["hello"]]


async def test_a_definition_may_be_json_text() -> None:
    text = '{"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}'
    async with FlowManager() as flows:
        assert (await flows.execute_flow(workflow_def=text))["state"] == "completed"
