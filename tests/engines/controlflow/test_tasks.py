"""Agent work on ControlFlow: tasks, results, tools, several agents, and what they share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contexten.extensions.flow import FlowService

from ..model_server import Call, Calls, ModelRequest, ModelServer, Reply, Text
from .conftest import EventsOf, RunFlow, Stock, end_of, flow_of, said, succeed, task_of

pytestmark = pytest.mark.anyio


async def test_a_task_ends_with_what_its_agent_says(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = lambda request: succeed(request, "Bonjour.")
    run = await run_flow({"name": "greet", "description": "Say hello in French."})
    assert (run.state, run.output) == ("completed", {"greet": "Bonjour."})
    assert "Say hello in French." in model.requests[0].system


async def test_text_is_kept_as_text_even_where_it_is_json(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = lambda request: succeed(request, '{"a": 1}')
    run = await run_flow({"name": "write"})
    assert run.output == {"write": '{"a": 1}'}


async def test_free_text_types_are_work_for_an_agent_too(run_flow: RunFlow, model: ModelServer) -> None:
    run = await run_flow(
        {
            "name": "think",
            "type": "deep_thought",
            "required_tools": ["json_parser"],
            "preferred_agent_type": "philosopher",
        }
    )
    assert run.output == {"think": "done"}
    assert "Your name is philosopher." in model.requests[0].system


async def test_tool_tasks_need_neither_model_nor_process(run_flow: RunFlow, model: ModelServer) -> None:
    task = {"name": "sum", "type": "tool", "required_tools": ["data_processor"]}
    run = await run_flow({**task, "parameters": {"data": [1, 2], "expression": "sum(data)"}})
    assert run.output == {"sum": 3}
    assert model.requests == []


@pytest.mark.parametrize(
    ("schema", "result"),
    [
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"n": 3}),
        ({"type": "array", "items": {"$ref": "#/$defs/word"}, "$defs": {"word": {"type": "string"}}}, ["a", "b"]),
        ({"enum": ["low", "high"]}, "high"),
        ({"type": "integer", "minimum": 2}, 5),
        (True, {"anything": [None]}),
    ],
)
async def test_a_result_has_the_structure_that_is_asked_for(
    run_flow: RunFlow, model: ModelServer, schema: Any, result: Any
) -> None:
    model.script = lambda request: succeed(request, result)
    run = await run_flow({"name": "answer", "output_schema": schema})
    assert run.output == {"answer": result}, run.error


async def test_an_agent_whose_result_does_not_fit_is_told_so_and_mends_it(
    run_flow: RunFlow, model: ModelServer
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}}, "required": ["n"]}

    def script(request: ModelRequest) -> Reply:
        return succeed(request, {"n": 3 if "maximum of 5" in request.last else 30})

    model.script = script
    run = await run_flow({"name": "answer", "output_schema": schema})
    assert run.output == {"answer": {"n": 3}}
    assert len(model.requests) == 2


async def test_results_that_never_fit_fail_the_task_as_invalid(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = lambda request: succeed(request, {"n": "three"})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    run = await run_flow({"name": "answer", "output_schema": schema})
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.kind == "invalid"
    assert "/n" in run.error.message
    assert len(model.requests) == 3


async def test_agents_call_the_task_s_tools_in_this_process(
    run_flow: RunFlow, model: ModelServer, stock: Stock, events_of: EventsOf
) -> None:
    stock.calls.clear()

    def script(request: ModelRequest) -> Reply:
        if not request.results:
            return Call("count_items", {"item": "pear"})
        return succeed(request, request.results[-1])

    model.script = script
    run = await run_flow({"name": "count", "required_tools": ["count_items"]})
    assert json.loads((run.output or {})["count"]) == {"item": "pear", "count": 7}
    assert stock.calls == [{"item": "pear"}]
    (told,) = await events_of(run.run_id, "task.tool_called")
    assert (told["tool"], told["ok"], told["arguments"]) == ("count_items", True, {"item": "pear"})


async def test_the_failure_of_a_tool_goes_back_to_the_agent(
    run_flow: RunFlow, model: ModelServer, events_of: EventsOf
) -> None:
    def script(request: ModelRequest) -> Reply:
        return succeed(request, request.results[-1]) if request.results else Call("broken_scale", {})

    model.script = script
    run = await run_flow({"name": "weigh", "required_tools": ["broken_scale"]})
    assert run.state == "completed"
    assert "the scale is offline" in (run.output or {})["weigh"]
    (told,) = await events_of(run.run_id, "task.tool_called")
    assert told["ok"] is False


async def test_a_tool_that_the_settings_deny_to_models_is_not_called(
    run_flow: RunFlow, model: ModelServer, stock: Stock, events_of: EventsOf
) -> None:
    stock.calls.clear()

    def script(request: ModelRequest) -> Reply:
        return succeed(request, "no") if request.results else Call("open_safe", {"code": 1})

    model.script = script
    run = await run_flow({"name": "rob", "required_tools": ["open_safe"]})
    assert run.state == "completed"
    assert stock.calls == []
    assert "MODEL_DENY_TOOLS" in model.requests[-1].results[-1]
    assert len(await events_of(run.run_id, "task.tool_vetoed")) == 1


async def test_a_call_that_is_no_json_and_one_of_no_tool_are_told_back(
    run_flow: RunFlow, model: ModelServer, stock: Stock
) -> None:
    stock.calls.clear()

    def script(request: ModelRequest) -> Reply:
        replies: list[Reply] = [Call("count_items", '{"item": '), Call("invent", {}), succeed(request)]
        return replies[len(request.results)]

    model.script = script
    run = await run_flow({"name": "count", "required_tools": ["count_items"]})
    assert run.state == "completed", run.error
    assert stock.calls == []
    assert "invent" in model.requests[2].results[1]


async def test_a_task_knows_the_flow_and_the_outputs_before_it(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = lambda request: succeed(request, f"result of {task_of(request)}")
    run = await run_flow(
        {"name": "sum", "type": "tool", "required_tools": ["data_processor"],
         "parameters": {"data": [40, 2], "expression": "sum(data)"}},
        {"name": "explain", "description": "Explain the sum."},
        {"name": "shorten", "description": "Make it short."},
        name="Bookkeeping", description="The books of 2026.",
        context={"instructions": "Never use slang.", "currency": "EUR"},
    )  # fmt: skip
    assert run.output == {"shorten": "result of shorten", "explain": "result of explain", "sum": 42}
    first, second = model.requests
    for text in ("Bookkeeping", "The books of 2026.", "EUR", "Never use slang.", "'sum': 42"):
        assert text in first.system, text
    assert "depends on these upstream task IDs (includes subtasks): explain" in second.system
    assert "Explain the sum." in said(second)
    assert second.results == ["Task #explain (explain) marked successful."]


async def test_lines_of_an_objective_stay_lines(run_flow: RunFlow, model: ModelServer) -> None:
    await run_flow({"name": "read", "description": "Read this table:\n\na,b\n1,2"})
    assert "a,b\n1,2" in model.requests[0].system


async def test_attempts_side_by_side_see_nothing_of_each_other(run_flow: RunFlow, model: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if len(request.results) < 2:
            return Call("count_items", {"item": task_of(request)})
        return succeed(request, len(request.messages))

    model.script = script
    items = {"name": "count", "for_each": "{{ [1, 2, 3, 4] }}", "required_tools": ["count_items"]}
    run = await run_flow({**items, "output_schema": {"type": "integer"}})
    assert run.state == "completed", run.error
    for request in model.requests:
        asked = [call["id"] for message in request.messages for call in message.get("tool_calls") or []]
        assert len(asked) == len(request.results)


async def test_what_models_use_is_in_the_journal(run_flow: RunFlow, model: ModelServer, events_of: EventsOf) -> None:
    def script(request: ModelRequest) -> Reply:
        return succeed(request) if len(request.messages) > 2 else Text("Let me think.", usage=(100, 50))

    model.script = script
    run = await run_flow({"name": "think"})
    called = await events_of(run.run_id, "task.model_called")
    assert [(call["model"], call["input_tokens"], call["output_tokens"]) for call in called] == [
        ("openai/scripted", 100, 50),
        ("openai/scripted", 10, 5),
    ]
    (usage,) = await events_of(run.run_id, "task.usage")
    assert usage == {
        "model": "openai/scripted",
        "model_calls": 2,
        "input_tokens": 110,
        "output_tokens": 55,
        "cost_usd": 22.0,
    }


TEAM: dict[str, Any] = {"agents": [
    {"name": "writer", "instructions": "You write."},
    {"name": "critic", "instructions": "You criticise.", "tools": ["count_items"]},
]}  # fmt: skip


def speaker(request: ModelRequest) -> str:
    return "writer" if "Your name is writer." in request.system else "critic"


async def test_agents_take_turns_round_robin(run_flow: RunFlow, model: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if request.number < 3:
            return Calls([Call("end_turn")], text=f"{speaker(request)} was here")
        return succeed(request, "agreed")

    model.script = script
    run = await run_flow({"name": "essay", "required_tools": ["count_items"],
                          "parameters": {"agent": {**TEAM, "turn_strategy": "round_robin"}}})  # fmt: skip
    assert run.output == {"essay": "agreed"}
    assert [speaker(request) for request in model.requests] == ["writer", "critic", "writer"]
    assert "writer was here" in said(model.requests[1])
    assert "critic was here" in said(model.requests[2])
    assert "count_items" in model.requests[1].tools


async def test_a_moderator_says_who_is_next(run_flow: RunFlow, model: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if speaker(request) == "critic" and request.number == 1:
            return Call("delegate_to_agent", {"agent_id": "writer"})
        return Call("end_turn") if speaker(request) == "writer" else succeed(request, "approved")

    model.script = script
    options = {**TEAM, "turn_strategy": "moderated", "entry": "critic"}
    run = await run_flow({"name": "essay", "required_tools": ["count_items"], "parameters": {"agent": options}})
    assert run.output == {"essay": "approved"}
    assert [speaker(request) for request in model.requests] == ["critic", "writer", "critic"]


@pytest.mark.parametrize("strategy", ["popcorn", "random", "most_busy"])
async def test_every_turn_strategy_comes_to_an_end(run_flow: RunFlow, model: ModelServer, strategy: str) -> None:
    run = await run_flow({"name": "essay", "required_tools": ["count_items"],
                          "parameters": {"agent": {**TEAM, "turn_strategy": strategy}}})  # fmt: skip
    assert run.output == {"essay": "done"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": "graph", **TEAM}, "turn_strategy"),
        ({**TEAM, "entry": "nobody"}, "parameters/agent/entry"),
        ({"agents": [{"name": "a"}, {"name": "a"}]}, "two agents have one name"),
        ({"agents": [{"name": "a", "tools": ["shell"]}]}, "required_tools"),
        ({"model": "anthropic/claude"}, "openai/NAME"),
    ],
)
async def test_options_that_cannot_be_fail_the_task_as_invalid(
    run_flow: RunFlow, model: ModelServer, options: dict[str, Any], words: str
) -> None:
    task = {"name": "essay", "parameters": {"agent": "{{ context.agent }}"}, "required_tools": ["count_items"]}
    run = await run_flow(task, context={"agent": options})
    assert run.error is not None
    assert run.error.kind == "invalid"
    assert words in run.error.message
    assert model.requests == []


async def test_the_engine_tells_what_it_is(flows: FlowService) -> None:
    (view,) = [view for view in await flows.engines.views() if view.name == "controlflow"]
    assert view.available
    assert view.version == "0.12.1"
    assert "openai/scripted" in (view.note or "")


async def test_nothing_reaches_standard_output(
    flows: FlowService, run_flow: RunFlow, capfd: pytest.CaptureFixture[str]
) -> None:
    run = await run_flow({"name": "greet"})
    assert run.state == "completed"
    assert capfd.readouterr().out == ""
    begun = await flows.execute_flow(workflow_def=flow_of({"name": "again"}), framework="controlflow")
    assert (await end_of(flows, begun.run_id)).state == "completed"
