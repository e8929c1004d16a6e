"""Several agents on one task: graphs and swarms, as options of the task."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import InvalidDefinition
from contexten.extensions.flow.strands.patterns import _quiet

from ..model_server import Call, Fault, ModelRequest, ModelServer, Reply, Text
from .conftest import Play

pytestmark = pytest.mark.anyio

TEAM = [{"name": name, "instructions": f"You are {name}."} for name in ("facts", "figures", "writer")]
DIAMOND = {"pattern": "graph", "agents": TEAM, "edges": [["facts", "writer"], ["figures", "writer"]]}


def who(request: ModelRequest) -> str:
    return request.system.removeprefix("You are ").rstrip(".")


async def test_a_graph_hands_on_from_its_first_to_its_last(play: Play, model_server: ModelServer) -> None:
    both = threading.Barrier(2, timeout=20)

    def script(request: ModelRequest) -> Reply:
        if who(request) in ("facts", "figures"):
            both.wait()  # side by side
            return Text(f"the {who(request)}", usage=(100, 1))
        assert "the facts" in request.user
        assert "the figures" in request.user
        return Text("the report", usage=(100, 1))

    ended = await play(script, {"description": "Report.", "parameters": {"agent": DIAMOND}})
    assert ended.output == "the report"
    assert len(model_server.requests) == 3  # the writer waits for both
    assert ended.told("task.usage") == [
        {"model": "openai/scripted", "model_calls": 3, "input_tokens": 300, "output_tokens": 3}
    ]
    assert {called["agent"] for called in ended.told("task.model_called")} == {"facts", "figures", "writer"}
    assert "writer begins" in ended.lines
    assert any(line.startswith("facts ended as completed") for line in ended.lines)


async def test_all_that_nobody_follows_are_the_output(play: Play) -> None:
    options = {"pattern": "graph", "agents": TEAM, "edges": [["facts", "figures"], ["facts", "writer"]]}
    ended = await play(lambda request: Text(f"by {who(request)}"), {"parameters": {"agent": options}})
    assert ended.output == {"figures": "by figures", "writer": "by writer"}


async def test_a_team_answers_in_structure_too(play: Play) -> None:
    def script(request: ModelRequest) -> Reply:
        if "final_answer" in request.tools:
            assert "the report" in request.user
            return Call("final_answer", {"title": "the report"})
        return Text("the report")

    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    ended = await play(script, {"parameters": {"agent": DIAMOND}, "output_schema": schema})
    assert ended.output == {"title": "the report"}


async def test_a_swarm_hands_over_by_itself(play: Play, model_server: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if who(request) == "figures" and not request.results:
            return Call("handoff_to_agent", {"agent_name": "writer", "message": "write it down: 42"})
        if who(request) == "figures":
            return Text("handed over")
        assert "write it down: 42" in request.user
        return Text("forty-two")

    options = {"pattern": "swarm", "agents": TEAM, "entry": "figures"}
    ended = await play(script, {"parameters": {"agent": options}})
    assert ended.output == "forty-two"
    assert "figures handed on to writer" in ended.lines


async def test_members_have_tools_and_models_of_their_own(play: Play, model_server: ModelServer) -> None:
    team = [{"name": "counter", "tools": ["data_processor"], "model": "openai/large"}, {"name": "writer", "tools": []}]
    options = {"pattern": "graph", "agents": team, "edges": [["counter", "writer"]]}
    prices = {"openai/large": "1/1"}
    task = {"required_tools": ["data_processor"], "parameters": {"agent": options}}
    ended = await play([Text("3"), Text("three")], task, model_prices=prices)
    assert ended.output == "three"
    assert [(request.body["model"], list(request.tools)) for request in model_server.requests] == [
        ("large", ["data_processor"]),
        ("scripted", []),
    ]
    assert [usage["model"] for usage in ended.told("task.usage")] == ["openai/large", "openai/scripted"]


@pytest.mark.parametrize("pattern", ["graph", "swarm"])
async def test_a_member_that_fails_fails_the_attempt_with_its_kind_and_no_stack_trace(
    play: Play, caplog: pytest.LogCaptureFixture, pattern: str
) -> None:
    ended = await play([Fault(429)], {"parameters": {"agent": {"pattern": pattern, "agents": TEAM}}})
    assert ended.error[0] == "rate_limit"
    assert [record for record in caplog.records if record.name.startswith("strands.multiagent")] == []


def test_teams_outside_flows_log_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    with _quiet():
        pass
    logging.getLogger("strands.multiagent.graph").error("graph execution failed")
    assert caplog.messages == ["graph execution failed"]


async def test_a_swarm_that_never_ends_is_ended(play: Play, model_server: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        other = "writer" if who(request) == "facts" else "facts"
        return Call("handoff_to_agent", {"agent_name": other, "message": "you"})

    options = {"pattern": "swarm", "agents": TEAM, "max_turns": 6}
    ended = await play(script, {"parameters": {"agent": options}})
    assert ended.error[0] == "agent_failure"
    assert len(model_server.requests) == 6


@pytest.mark.parametrize(
    ("options", "path", "code", "suggestion"),
    [
        ({"instruction": "x"}, "/instruction", "unknown_parameter", "instructions"),
        ({"temperature": "hot"}, "/temperature", "wrong_type", None),
        ({"max_turns": 0}, "/max_turns", "invalid_parameters", None),
        ({"pattern": "grahp"}, "/pattern", "invalid_parameters", None),
        ({"pattern": "graph"}, "/pattern", "missing_members", None),
        ({"agents": [{"name": "a", "tool": []}]}, "/agents/0/tool", "unknown_parameter", "tools"),
        ({"agents": [{}]}, "/agents/0", "missing_parameter", None),
        ({"agents": [{"name": "a"}, {"name": "a"}]}, "/agents/1/name", "duplicate_member", None),
        ({"agents": [{"name": "a", "tools": ["data_procesor"]}]}, "/agents/0/tools/0", "tool_not_required", None),
        ({"pattern": "swarm", "agents": TEAM, "entry": "writr"}, "/entry", "unknown_member", "writer"),
        ({**DIAMOND, "edges": [["facts", "writers"]]}, "/edges/0/1", "unknown_member", "writer"),
        ({**DIAMOND, "edges": [["facts", "writer"], ["writer", "facts"]]}, "/edges", "cycle", None),
        ({"pattern": "swarm", "agents": TEAM, "edges": [["facts", "writer"]]}, "/edges", "unused_field", None),
        ("very smart", "", "wrong_type", None),
    ],
)
async def test_wrong_options_are_told_when_the_flow_is_made(
    settings: FlowSettings, options: Any, path: str, code: str, suggestion: str | None
) -> None:
    task = {"name": "work", "type": "agent", "description": "Do it.", "parameters": {"agent": options}}
    async with FlowService(settings) as flows:
        with pytest.raises(InvalidDefinition) as refused:
            await flows.create_flow(workflow_def={"stages": [{"name": "only", "tasks": [task]}]})
    (issue,) = refused.value.issues
    assert (issue.path, issue.code) == (f"/stages/0/tasks/0/parameters/agent{path}", code)
    assert issue.suggestion == suggestion


async def test_a_task_without_an_objective_is_refused(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        with pytest.raises(InvalidDefinition) as refused:
            await flows.create_flow(
                workflow_def={"stages": [{"name": "only", "tasks": [{"name": "a", "type": "agent"}]}]}
            )
    assert [(issue.path, issue.code) for issue in refused.value.issues] == [("/stages/0/tasks/0", "missing_objective")]


async def test_options_may_be_templates(settings: FlowSettings) -> None:
    options = {
        "instructions": "Be {{ inputs.how }}.",
        "temperature": "{{ inputs.heat }}",
        "agents": "{{ inputs.team }}",
    }
    task = {"name": "work", "type": "agent", "parameters": {"objective": "{{ inputs.what }}", "agent": options}}
    async with FlowService(settings) as flows:
        saved = await flows.create_flow(workflow_def={"stages": [{"name": "only", "tasks": [task]}], "inputs": True})
    assert saved.warnings == []


async def test_free_text_that_no_tools_can_do_needs_a_model(settings: FlowSettings) -> None:
    tasks = [
        {"name": "judge", "type": "judgement", "required_tools": ["data_processor"], "parameters": {"case": 1}},
        {"name": "plain", "type": "tool", "required_tools": ["data_processor"], "parameters": {"case": 1}},
    ]

    def definition(task: dict[str, Any]) -> dict[str, Any]:
        return {"stages": [{"name": "only", "tasks": [task]}]}

    async with FlowService(settings) as flows:
        saved = await flows.create_flow(workflow_def=definition(tasks[0]))
        assert [(warning.path, warning.code) for warning in saved.warnings] == [
            ("/stages/0/tasks/0/type", "needs_model_engine")
        ]
        with pytest.raises(InvalidDefinition, match="takes no parameter 'case'"):
            await flows.create_flow(workflow_def=definition(tasks[1]))
    async with FlowService(settings.model_copy(update={"model": None})) as flows:
        with pytest.raises(InvalidDefinition, match="takes no parameter 'case'"):
            await flows.create_flow(workflow_def=definition(tasks[0]))
