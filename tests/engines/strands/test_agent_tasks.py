"""Tasks that a language model does: what it is told, what it may use, what it answers, and what that costs."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import EngineUnavailable
from contexten.extensions.flow.settings import SecretGrant

from ..model_server import Call, Calls, Hang, ModelRequest, ModelServer, Reply, Text
from .conftest import Play

pytestmark = pytest.mark.anyio

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def flow(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **more}


@pytest.mark.parametrize("framework", ["native", "strands"])
async def test_a_model_does_what_the_description_says(play: Play, model_server: ModelServer, framework: str) -> None:
    task = {
        "description": "Greet the customer.",
        "parameters": {"customer": "Ada", "agent": {"instructions": "Be brief."}},
    }
    ended = await play([Text("Hello, Ada.")], task, framework=framework)
    assert ended.output == "Hello, Ada."
    (request,) = model_server.requests
    assert request.system == "Be brief."
    assert "Greet the customer." in request.user
    assert '"customer": "Ada"' in request.user
    assert "instructions" not in request.user


async def test_a_model_knows_the_flow_and_the_outputs_before(play: Play, model_server: ModelServer) -> None:
    tasks: list[dict[str, Any]] = [
        {"name": "gather", "parameters": {"rows": [1, 2]}},
        {"name": "sum_up", "type": "agent", "description": "Sum up.", "depends_on": ["gather"]},
    ]
    definition = flow(*tasks, name="reports", description="Weekly reports.", inputs=True, context={"region": "north"})
    await play([Text("three")], definition=definition, inputs={"week": 7})
    told = model_server.requests[0].user
    for word in ("reports", "Weekly reports.", '"week": 7', "north", "Output of the task gather"):
        assert word in told
    assert json.dumps({"rows": [1, 2]}, indent=1) in told


async def test_a_model_uses_the_tools_of_its_task_and_no_others(play: Play, model_server: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if not request.results:
            return Call("data_processor", {"data": [3, 1, 2], "query": "max(@)"})
        return Text(f"The most is {request.results[-1]}.")

    ended = await play(script, {"required_tools": ["data_processor"]})
    assert ended.output == "The most is 3."
    assert list(model_server.requests[0].tools) == ["data_processor"]
    assert "query" in model_server.requests[0].tools["data_processor"]["properties"]
    (called,) = ended.told("task.tool_called")
    assert (called["tool"], called["ok"]) == ("data_processor", True)


async def test_a_function_of_python_is_a_tool(play: Play) -> None:
    async def stock(task: TaskCall, context: AttemptContext) -> dict[str, Any]:
        return {"item": task.parameters["item"], "left": 4}

    def script(request: ModelRequest) -> Reply:
        return (
            Text(f"left: {json.loads(request.results[0])['left']}")
            if request.results
            else Call("stock", {"item": "cup"})
        )

    ended = await play(script, {"required_tools": ["stock"]}, agents=[stock])
    assert ended.output == "left: 4"


async def test_a_tool_that_fails_is_the_models_to_mend(play: Play, model_server: ModelServer) -> None:
    replies = [
        Call("data_processor", {"data": [1], "query": "max(("}),
        Call("data_processor", {"data": [1], "query": "max(@)"}),
        Text("1 it is"),
    ]
    ended = await play(replies, {"required_tools": ["data_processor"]})
    assert ended.output == "1 it is"
    assert "invalid" in model_server.requests[1].results[0]
    assert [called["ok"] for called in ended.told("task.tool_called")] == [False, True]


async def test_a_tool_that_is_denied_is_not_called(play: Play, model_server: ModelServer) -> None:
    replies = [Call("data_processor", {"data": [1], "query": "@"}), Text("I may not.")]
    ended = await play(replies, {"required_tools": ["data_processor"]}, model_deny_tools=("data_processor",))
    assert ended.output == "I may not."
    assert "deny" in model_server.requests[1].results[0]
    assert [told["tool"] for told in ended.told("task.tool_vetoed")] == ["data_processor"]
    assert ended.told("task.tool_called") == []


@pytest.mark.parametrize("arguments", ['{"data": [1], "query": ', "[1, 2]", '"text"'])
async def test_a_malformed_call_calls_nothing(play: Play, model_server: ModelServer, arguments: str) -> None:
    ended = await play([Call("data_processor", arguments), Text("Never mind.")], {"required_tools": ["data_processor"]})
    assert ended.output == "Never mind."
    assert model_server.requests[1].results == ["The arguments are no JSON object; nothing was called."]
    assert ended.told("task.tool_called") == []


async def test_a_tool_that_does_not_exist_is_told_to_the_model(play: Play, model_server: ModelServer) -> None:
    ended = await play([Call("shell", {"argv": ["id"]}), Text("Then not.")])
    assert ended.output == "Then not."
    assert "shell" in model_server.requests[1].results[0]


# Structure


async def test_a_structured_answer_comes_by_a_tool(play: Play, model_server: ModelServer) -> None:
    ended = await play([Call("final_answer", {"name": "Ada", "age": 36})], {"output_schema": PERSON})
    assert ended.output == {"name": "Ada", "age": 36}
    assert model_server.requests[0].tools["final_answer"]["required"] == ["name", "age"]
    assert len(model_server.requests) == 1


@pytest.mark.parametrize(
    "said", ['{"name": "Ada", "age": 36}', 'Here it is:\n```json\n{"name": "Ada", "age": 36}\n```\nDone.']
)
async def test_json_in_words_is_an_answer_too(play: Play, model_server: ModelServer, said: str) -> None:
    ended = await play([Text(said)], {"output_schema": PERSON})
    assert ended.output == {"name": "Ada", "age": 36}
    assert len(model_server.requests) == 1


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ({"type": "boolean"}, True),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, 1.5),
        ({"anyOf": [{"type": "null"}, {"type": "object"}]}, None),
        ({"oneOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "integer"}]}, [[1], 2]),
    ],
)
async def test_an_answer_may_be_no_object(play: Play, schema: dict[str, Any], value: Any) -> None:
    ended = await play([Call("final_answer", {"answer": value})], {"output_schema": schema})
    assert ended.output == value


async def test_an_answer_in_words_where_words_are_asked_for(play: Play) -> None:
    ended = await play([Text("yes")], {"output_schema": {"type": "string", "enum": ["yes", "no"]}})
    assert ended.output == "yes"


async def test_words_where_structure_is_due_are_corrected_once(play: Play, model_server: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        return Call("final_answer", {"name": "Ada", "age": 36}) if request.forced_tool else Text("Ada is 36.")

    ended = await play(script, {"output_schema": PERSON, "required_tools": ["data_processor"]})
    assert ended.output == {"name": "Ada", "age": 36}
    assert [request.forced_tool for request in model_server.requests] == [None, "final_answer"]
    assert list(model_server.requests[1].tools) == ["final_answer"]


async def test_words_again_fail_the_attempt_as_invalid(play: Play, model_server: ModelServer) -> None:
    ended = await play([Text("Ada is 36.")], {"output_schema": PERSON}, max_retries=3)
    kind, message = ended.error
    assert kind == "invalid"
    assert "no JSON" in message
    assert len(model_server.requests) == 2


async def test_an_answer_that_does_not_fit_is_told_where(play: Play, model_server: ModelServer) -> None:
    replies = [Call("final_answer", {"name": "Ada"}), Call("final_answer", {"name": "Ada", "age": 36})]
    ended = await play(replies, {"output_schema": PERSON})
    assert ended.output == {"name": "Ada", "age": 36}
    assert "'age' is a required property" in model_server.requests[1].results[0]


async def test_answers_that_never_fit_come_to_an_end(play: Play, model_server: ModelServer) -> None:
    ended = await play([Call("final_answer", {"name": "Ada"})], {"output_schema": PERSON})
    kind, message = ended.error
    assert kind == "invalid"
    assert "'age' is a required property" in message
    assert len(model_server.requests) == 6  # three, and three more when it was told that this is no answer


# Limits and accounts


async def test_a_model_that_loops_for_ever_is_ended(play: Play, model_server: ModelServer) -> None:
    task = {"required_tools": ["data_processor"], "parameters": {"agent": {"max_turns": 3}}}
    ended = await play([Call("data_processor", {"data": 1, "query": "@"})], task)
    kind, message = ended.error
    assert (kind, "3 turns" in message) == ("agent_failure", True)
    assert len(model_server.requests) == 3
    assert ended.told("task.usage")[0]["input_tokens"] == 30


async def test_a_model_that_uses_too_many_tokens_is_ended_for_good(play: Play, model_server: ModelServer) -> None:
    task = {"required_tools": ["data_processor"], "parameters": {"agent": {"max_tokens": 20}}}
    ended = await play([Call("data_processor", {"data": 1, "query": "@"})], task, max_retries=3)
    kind, message = ended.error
    assert (kind, "max_tokens" in message) == ("invalid", True)
    assert len(model_server.requests) == 2


async def test_what_was_used_and_what_it_cost_is_in_the_journal(play: Play) -> None:
    replies = [
        Calls([Call("data_processor", {"data": 1, "query": "@"})], usage=(1000, 50)),
        Text("1", usage=(2000, 10)),
    ]
    prices = {"openai/scripted": "0.5/2"}
    ended = await play(replies, {"required_tools": ["data_processor"]}, model_prices=prices)
    assert ended.told("task.usage") == [
        {
            "model": "openai/scripted",
            "model_calls": 2,
            "input_tokens": 3000,
            "output_tokens": 60,
            "cost_usd": pytest.approx(0.00162),
        }
    ]
    assert [(used.calls, used.input_tokens) for used in ended.run.usage or ()] == [(2, 3000)]
    calls = ended.told("task.model_called")
    assert [(call["stop_reason"], call["input_tokens"]) for call in calls] == [("tool_use", 1000), ("end_turn", 2000)]
    assert all(call["ms"] >= 0 for call in calls)


async def test_what_a_model_says_is_told_in_lines_not_in_words(play: Play) -> None:
    said = "word " * 400
    ended = await play([Text(said)])
    (line,) = ended.lines
    assert line.startswith("work: word word")
    assert len(line) < 600


# Who takes what


async def test_free_text_tasks_are_the_models_on_strands_alone(play: Play, model_server: ModelServer) -> None:
    definition = flow({"name": "judge", "type": "judgement", "description": "Judge.", "parameters": {"case": 1}})
    on_native = await play([Text("guilty")], definition=definition)
    assert on_native.output == {"case": 1}
    assert model_server.requests == []
    on_strands = await play([Text("guilty")], definition=definition, framework="strands")
    assert on_strands.output == "guilty"


async def test_tools_go_to_no_model(play: Play, model_server: ModelServer) -> None:
    task = {"name": "most", "required_tools": ["data_processor"], "parameters": {"data": [1, 2], "query": "max(@)"}}
    ended = await play([Text("three")], definition=flow(task), framework="strands")
    assert ended.output == 2
    assert model_server.requests == []


async def test_without_a_model_the_run_is_refused_with_what_to_set(settings: FlowSettings) -> None:
    task = {"name": "work", "type": "agent", "description": "Do it."}
    async with FlowService(settings.model_copy(update={"model": None})) as flows:
        saved = await flows.create_flow(workflow_def=flow(task))
        assert [warning.code for warning in saved.warnings] == ["no_model"]
        with pytest.raises(EngineUnavailable, match="CONTEXTEN_FLOW_MODEL, such as openai/NAME"):
            await flows.execute_flow(flow_id=saved.flow_id)


async def test_what_tools_give_and_fail_of_reaches_a_model_without_secrets(
    play: Play, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VAULT_WORD", "open sesame")
    (tmp_path / "note.txt").write_text("The word is open sesame.")

    async def sing(task: TaskCall, context: AttemptContext) -> object:
        raise LookupError("no song is called open sesame")

    replies = [
        Calls([Call("file_reader", {"path": str(tmp_path / "note.txt")}), Call("sing", {})]),
        Text("Nothing to tell."),
    ]
    ended = await play(
        replies,
        {"required_tools": ["file_reader", "sing"]},
        agents={"sing": sing},
        allow_paths=(tmp_path,),
        secrets=(SecretGrant(name="VAULT_WORD"),),
    )
    assert ended.output == "Nothing to tell."
    told = str(model_server.requests[1].messages)
    assert "The word is [secret:VAULT_WORD]." in told
    assert "lookup_error: LookupError: no song is called [secret:VAULT_WORD]" in told
    assert "open sesame" not in told


async def test_a_secret_is_not_for_a_model(
    play: Play, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_WORD", "open sesame")
    task = {"parameters": {"word": "{{ secrets.VAULT_WORD }}"}}
    ended = await play([Text("done")], task, secrets=(SecretGrant(name="VAULT_WORD"),))
    kind, message = ended.error
    assert (kind, "VAULT_WORD@tool:strands-model" in message) == ("invalid", True)
    assert model_server.requests == []
    grant = SecretGrant(name="VAULT_WORD", tools=("strands-model",))
    ended = await play([Text("You said open sesame.")], task, secrets=(grant,))
    assert "open sesame" in model_server.requests[0].user
    assert ended.output == "You said [secret:VAULT_WORD]."
    assert "open sesame" not in str(ended.events)


async def test_items_share_the_places_of_the_model(play: Play, model_server: ModelServer) -> None:
    places = 3
    together = threading.Barrier(places, timeout=20)
    lock = threading.Lock()
    under_way: list[str] = []
    most: list[int] = []

    def script(request: ModelRequest) -> Reply:
        item = request.user.split('"n": ')[1].split()[0]
        with lock:
            under_way.append(item)
            most.append(len(under_way))
        together.wait()
        with lock:
            under_way.remove(item)
        return Text(item)

    task = {"for_each": "{{ inputs.numbers }}", "parameters": {"n": "{{ item }}"}}
    whole = {"name": "work", "type": "agent", "description": "Say n.", **task}
    definition = flow(whole, inputs=True)
    numbers = list(range(24))
    ended = await play(script, definition=definition, inputs={"numbers": numbers}, model_capacity=places)
    assert ended.output == [str(number) for number in numbers]
    assert max(most) == places


async def test_cancelling_a_run_ends_the_models_call_at_once(settings: FlowSettings, model_server: ModelServer) -> None:
    model_server.script = [Hang("I begin")]
    async with FlowService(settings) as flows:
        task = {"name": "work", "type": "agent", "description": "Do it."}
        run = await flows.execute_flow(workflow_def=flow(task))
        assert await anyio.to_thread.run_sync(model_server.wait_for, 1)
        await flows.control(run.run_id, "cancel")
        assert await anyio.to_thread.run_sync(model_server.left.wait, 10)
        await flows.wait(run.run_id, timeout_s=10)
        assert (await flows.get_run(run.run_id)).state == "cancelled"
        events = await flows.events(run.run_id, limit=1000)
    used = [event.details for event in events if event.type == "task.usage"]
    assert used == [{"model": "openai/scripted", "model_calls": 1, "input_tokens": 0, "output_tokens": 0}]
