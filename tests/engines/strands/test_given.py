"""Agents, graphs and swarms of Strands that are given as `agents=`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from strands.multiagent import GraphBuilder, Swarm

from contexten.extensions.flow import FlowManager

from ..model_server import Call, Fault, ModelRequest, ModelServer, Reply, Text
from .conftest import Play

pytestmark = pytest.mark.anyio


@pytest.fixture
def model(model_server: ModelServer) -> OpenAIModel:
    return OpenAIModel(client_args={"base_url": model_server.url, "api_key": "none", "max_retries": 0}, model_id="own")


def agent(model: OpenAIModel, name: str = "analyst", **more: Any) -> Agent:
    return Agent(model=model, name=name, callback_handler=None, retry_strategy=None, **more)


async def test_a_given_agent_takes_tasks_before_the_configured_model(
    play: Play, model: OpenAIModel, model_server: ModelServer
) -> None:
    given = agent(model, system_prompt="You are an analyst.")
    ended = await play([Text("up")], {"description": "Which way?"}, agents=[given])
    assert ended.output == "up"
    (request,) = model_server.requests
    assert (request.body["model"], request.system) == ("own", "You are an analyst.")
    assert ended.told("task.usage") == [{"model": "own", "model_calls": 1, "input_tokens": 10, "output_tokens": 5}]
    assert ended.lines == ["analyst: up"]


async def test_it_works_without_a_configured_model(model: OpenAIModel, model_server: ModelServer) -> None:
    model_server.script = [Text("hello")]
    async with FlowManager(agents={"greeter": agent(model)}) as manager:
        task = {"name": "greet", "type": "agent", "description": "Greet."}
        flow = await manager.create_flow(name="hello", workflow_def={"stages": [{"name": "only", "tasks": [task]}]})
        run = await manager.execute_flow(flow["flow_id"])
    assert run["output"] == {"greet": "hello"}


@pytest.mark.parametrize("is_member", [False, True])
async def test_an_agent_given_twice_is_at_one_task_at_a_time(
    play: Play, model: OpenAIModel, model_server: ModelServer, *, is_member: bool
) -> None:
    given = agent(model)
    other: Any = given
    if is_member:
        builder = GraphBuilder()
        builder.add_node(given, "only")
        builder.set_max_node_executions(5)
        other = builder.build()
    tasks = [
        {"name": name, "type": "agent", "description": f"Do {name}.", "preferred_agent_type": "strands"}
        for name in ("one", "two", "three", "four")
    ]
    definition = {"stages": [{"name": "only", "tasks": tasks, "execution_mode": "parallel"}], "output": "done"}
    ended = await play([Text("done")], definition=definition, agents={"alone": given, "again": other})
    assert ended.run.state == "completed"
    assert [len(request.messages) for request in model_server.requests] == [1, 1, 1, 1]
    assert given.messages == []


async def test_each_task_finds_the_agent_as_it_was_given(
    play: Play, model: OpenAIModel, model_server: ModelServer
) -> None:
    given = agent(model)
    tasks = [{"name": name, "type": "agent", "description": f"Do {name}."} for name in ("one", "two")]
    definition = {"stages": [{"name": "only", "tasks": tasks, "execution_mode": "parallel"}], "output": "done"}
    ended = await play([Text("done")], definition=definition, agents=[given])
    assert ended.run.state == "completed"
    assert [len(request.messages) for request in model_server.requests] == [1, 1]  # one at a time, none remembered
    assert given.messages == []


async def test_its_own_tools_are_its_own_affair(play: Play, model: OpenAIModel) -> None:
    @tool
    def stock(item: str) -> int:
        """How many there are.

        Args:
            item: what
        """
        return len(item)

    def script(request: ModelRequest) -> Reply:
        return Text(f"{request.results[0]} cups") if request.results else Call("stock", {"item": "cup"})

    given = agent(model, tools=[stock])
    ended = await play(script, {"required_tools": ["stock"]}, agents=[given])
    assert ended.output == "3 cups"
    assert [(told["tool"], told["ok"]) for told in ended.told("task.tool_called")] == [("stock", True)]


async def test_a_tasks_tools_never_go_to_a_given_model(
    play: Play, model: OpenAIModel, model_server: ModelServer
) -> None:
    task = {"name": "rows", "parameters": {"rows": [1]}}
    ended = await play([Text("no")], definition={"stages": [{"name": "s", "tasks": [task]}]}, agents=[agent(model)])
    assert ended.output == {"rows": [1]}
    assert model_server.requests == []


async def test_a_structure_of_its_own_is_the_output(play: Play, model: OpenAIModel) -> None:
    class Verdict(BaseModel):
        guilty: bool

    given = agent(model, structured_output_model=Verdict)
    ended = await play([Call("Verdict", {"guilty": False})], agents=[given])
    assert ended.output == {"guilty": False}


async def test_it_says_json_where_the_task_asks_for_structure(
    play: Play, model: OpenAIModel, model_server: ModelServer
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    ended = await play([Text("n is 3"), Text('{"n": 3}')], {"output_schema": schema}, agents=[agent(model)])
    assert ended.output == {"n": 3}
    assert json.dumps(schema, indent=1) in model_server.requests[0].user


async def test_its_failures_are_of_their_kind(play: Play, model: OpenAIModel) -> None:
    ended = await play([Fault(500)], agents=[agent(model)])
    assert ended.error[0] == "network"


async def test_keys_of_providers_are_not_told(play: Play, model: OpenAIModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-given-one")
    ended = await play([Fault(400, "cannot use sk-of-the-given-one")], agents=[agent(model)])
    assert "[the model's key]" in ended.error[1]
    assert "sk-of-the-given-one" not in str(ended.run) + str(ended.events)


async def test_a_graph_is_an_agent(play: Play, model: OpenAIModel, model_server: ModelServer) -> None:
    builder = GraphBuilder()
    builder.add_node(agent(model, "first"), "first")
    builder.add_node(agent(model, "last"), "last")
    builder.add_edge("first", "last")
    builder.set_graph_id("review")
    builder.set_max_node_executions(5)
    team = builder.build()
    ended = await play([Text("draft"), Text("final")], agents=[team])
    assert ended.output == "final"
    assert {told["agent"] for told in ended.told("task.model_called")} == {"first", "last"}
    again = await play([Text("draft"), Text("final")], agents=[team])
    assert again.output == "final"
    assert [len(request.messages) for request in model_server.requests] == [1, 1, 1, 1]


async def test_a_swarm_is_an_agent(play: Play, model: OpenAIModel) -> None:
    def script(request: ModelRequest) -> Reply:
        if "Handoff Message: over to you" in request.user:
            return Text("settled")
        return (
            Text("bye") if request.results else Call("handoff_to_agent", {"agent_name": "b", "message": "over to you"})
        )

    ended = await play(script, agents={"team": Swarm([agent(model, "a"), agent(model, "b")])})
    assert ended.output == "settled"
