"""What is wrong with a task for an MCP server is told when its flow is created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow.errors import InvalidDefinition, Issue

from .conftest import bad, example

if TYPE_CHECKING:
    from .conftest import Flows, Open

pytestmark = pytest.mark.anyio
PARAMETERS = "/stages/0/tasks/0/parameters"


async def refusal(flows: Flows, tool: str | list[str], **parameters: Any) -> Issue:
    with pytest.raises(InvalidDefinition) as refused:
        await flows.service.create_flow(workflow_def=flows.flow(tool, **parameters))
    return refused.value.issues[0]


async def test_arguments_are_checked_against_the_tools_schema(open_flows: Open) -> None:
    async with open_flows({"ex": example()}) as flows:
        missing = await refusal(flows, "mcp:ex/add", b=1)
        assert (missing.path, missing.code, missing.expected) == (PARAMETERS, "missing_parameter", "a")
        wrong = await refusal(flows, "mcp:ex/add", a="7")
        assert (wrong.path, wrong.code) == (f"{PARAMETERS}/a", "invalid_parameters")
        assert wrong.patch == [{"op": "replace", "path": f"{PARAMETERS}/a", "value": 7}]
        lists = await refusal(flows, "mcp:ex/add", a=[1])
        assert lists.patch is None
        assert lists.message == "mcp:ex/add: [1] is not of type 'integer'"
        saved = await flows.service.create_flow(workflow_def=flows.flow("mcp:ex/add", a="{{ 1 + 1 }}", c=3))
        assert [(warning.path, warning.code) for warning in saved.warnings] == [
            (f"{PARAMETERS}/c", "unknown_parameter")
        ]


async def test_a_template_that_gives_the_wrong_value_fails_the_attempt_once(open_flows: Open) -> None:
    async with open_flows({"ex": example()}) as flows:
        view = await flows.run("mcp:ex/add", a="{{ 'two' }}")
        assert view.error is not None
        assert (view.error.kind, view.error.attempt) == ("invalid", 1)
        assert "parameters/a: 'two' is not of type 'integer'" in view.error.message


async def test_unknown_tools_are_guessed_and_those_not_allowed_are_explained(open_flows: Open) -> None:
    async with open_flows({"ex": example(allow=["a*", "say"])}) as flows:
        unknown = await refusal(flows, "mcp:ex/sey")
        assert unknown.code == "no_able_agent"
        assert unknown.message == "the settings allow only a*, say of the MCP server ex"
        near = await refusal(flows, "mcp:ex/ad")
        assert (near.code, near.suggestion) == ("unknown_tool", "mcp:ex/add")
        assert flows.registry.find("ex").tools == ("mcp:ex/add", "mcp:ex/say", "mcp:ex/ask")
        elsewhere = await refusal(flows, "mcp:exx/add")
        assert (elsewhere.code, elsewhere.suggestion) == ("unknown_tool", "mcp:ex/add")


async def test_a_server_that_is_down_is_named_with_the_reason(open_flows: Open) -> None:
    servers = {"gone": bad("quit"), "none": {"command": "no-such-program-at-all"}, "ex": example()}
    async with open_flows(servers) as flows:
        gone = await refusal(flows, "mcp:gone/call")
        assert (gone.path, gone.code) == ("/stages/0/tasks/0/required_tools/0", "no_able_agent")
        assert gone.message == (
            "the MCP server gone is not available: it ended with exit code 1: the licence has run out"
        )
        none = await refusal(flows, "mcp:none/call")
        assert none.message.endswith("there is no program 'no-such-program-at-all' to start")
        assert flows.state("gone").startswith("failed: it ended with exit code 1")
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}  # the others are not held up


async def test_a_silent_server_holds_up_only_those_who_name_it(open_flows: Open) -> None:
    async with open_flows(
        {"mute": bad("silent", connect_timeout_s=0.5), "late": bad("no list", connect_timeout_s=1.5)}
    ) as flows:
        with anyio.fail_after(20):
            assert (await flows.run("data_processor", data=1, query="@")).output == {"t": 1}
            assert (await refusal(flows, "mcp:mute/call")).message.endswith("it did not answer within 0.5 s")
            assert (await refusal(flows, "mcp:late/call")).message.endswith("it did not list its tools within 1.5 s")


async def test_several_tools_in_one_task_are_refused(open_flows: Open) -> None:
    async with open_flows({"ex": example()}) as flows:
        two = await refusal(flows, ["mcp:ex/add", "mcp:ex/say"])
        assert (two.code, two.message) == ("no_pipeline", "a task calls one tool of an MCP server; split it")
        mixed = await refusal(flows, ["http_client", "mcp:ex/add"])
        assert mixed.code == "no_able_agent"
        assert "split the task" in mixed.message


async def test_agents_from_python_go_first_and_may_not_take_a_servers_name(open_flows: Open) -> None:
    class Own:
        name = "own"
        tools = ("mcp:ex/add",)

        async def run(self, task: Any, context: Any) -> str:
            return "from Python"

    async def ex(task: Any) -> None: ...

    async with open_flows({"ex": example()}, agents=[Own()]) as flows:
        assert await flows.output("mcp:ex/add", a=1) == "from Python"
        with pytest.raises(ValueError, match="'ex' is that of an MCP server"):
            flows.service.add_agents([ex])


async def test_a_stored_flow_outlives_its_server_and_goes_on_when_that_is_back(open_flows: Open) -> None:
    async with open_flows({"ex": example()}) as flows:
        flow_id = (await flows.service.create_flow(workflow_def=flows.flow("mcp:ex/add", a=1))).flow_id
    async with open_flows({"ex": bad("quit")}) as flows:
        run = await flows.service.execute_flow(flow_id=flow_id)
        view = await flows.end(run.run_id)
        assert view.error is not None
        assert view.error.kind == "network"
        assert "the licence has run out" in view.error.message
    async with open_flows({"ex": example()}) as flows:  # before the tools are listed again
        assert (await flows.end((await flows.service.execute_flow(flow_id=flow_id)).run_id)).output == {
            "t": {"total": 2}
        }
    async with open_flows({"ex": bad("fine")}) as flows:
        view = await flows.end((await flows.service.execute_flow(flow_id=flow_id)).run_id)
        assert view.error is not None
        assert (view.error.kind, view.error.attempt) == ("invalid", 1)
        assert "it has no such tool" in view.error.message
