"""Agents execute tasks: objects and functions given from Python, and the built-in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import InvalidDefinition

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}]}


class Translator:
    """An agent as an object: a name, a type, tools, a capacity, and `run`."""

    name = "translator"
    agent_type = "language"
    tools: Sequence[str] = ("translate",)
    capacity = 2

    def __init__(self) -> None:
        self.is_closed = False

    async def run(self, task: TaskCall, context: AttemptContext) -> dict[str, Any]:
        context.log("info", f"translating for {context.flow_id}")
        return {"text": task.parameters["text"].upper(), "attempt": context.attempt}

    async def aclose(self) -> None:
        self.is_closed = True


async def test_an_object_with_run_is_an_agent(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Translator()
    task = {"name": "speak", "type": "translation", "required_tools": ["translate"], "parameters": {"text": "hi"}}
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task))).run_id)
        tasks = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
        lines = [event.details for event in await flows.events(run.run_id) if event.type == "task.log"]
    assert run.output == {"speak": {"text": "HI", "attempt": 1}}
    assert tasks[0].agent == "translator"
    assert lines == [{"level": "info", "message": f"translating for {run.flow_id}"}]
    assert agent.is_closed


async def test_an_async_function_is_an_agent_whose_tool_is_its_name(settings: FlowSettings, end_of: EndOf) -> None:
    async def shout(task: TaskCall) -> str:
        return str(task["parameters"]["text"]).upper()

    task = {"name": "speak", "type": "t", "required_tools": ["shout"], "parameters": {"text": "hi"}}
    async with FlowService(settings, agents=[shout]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task))).run_id)
    assert run.output == {"speak": "HI"}


async def test_the_preferred_type_goes_first_where_there_is_one(settings: FlowSettings, end_of: EndOf) -> None:
    class Named:
        tools = ("work",)
        capacity = 1

        def __init__(self, name: str, agent_type: str) -> None:
            self.name, self.agent_type = name, agent_type

        async def run(self, task: TaskCall) -> str:
            return self.name

    agents = [Named("general", "any"), Named("expert", "finance")]
    tasks = [
        {"name": "sums", "type": "t", "required_tools": ["work"], "preferred_agent_type": "finance"},
        {"name": "chat", "type": "t", "required_tools": ["work"], "preferred_agent_type": "nobody"},
    ]
    async with FlowService(settings, agents=agents) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(*tasks))).run_id)
    assert run.output["sums"] == "expert"
    assert run.output["chat"] in ("general", "expert")


async def test_a_tool_that_no_agent_has_is_refused_when_the_flow_is_created(settings: FlowSettings) -> None:
    async with FlowService(settings, agents=[Translator()]) as flows:
        with pytest.raises(InvalidDefinition) as caught:
            await flows.create_flow(workflow_def=flow({"name": "speak", "required_tools": ["translat"]}))
    assert caught.value.issues[0].suggestion == "translate"


async def test_what_an_agent_does_to_its_parameters_stays_with_it(settings: FlowSettings, end_of: EndOf) -> None:
    seen: list[dict[str, Any]] = []

    async def greedy(task: TaskCall, context: AttemptContext) -> str:
        seen.append({"parameters": dict(task.parameters), "inputs": dict(context.inputs)})
        task.parameters.clear()
        if isinstance(context.inputs, dict):
            context.inputs["stolen"] = True
        if len(seen) == 1:
            raise RuntimeError("once more")
        return "done"

    task = {"name": "take", "type": "t", "required_tools": ["greedy"], "parameters": {"list": [1, 2]}}
    async with FlowService(settings, agents=[greedy]) as flows:
        saved = await flows.create_flow(workflow_def=flow(task | {"retry": {"delay_s": 0}}))
        await end_of(flows, (await flows.execute_flow(flow_id=saved.flow_id)).run_id)
        await end_of(flows, (await flows.execute_flow(flow_id=saved.flow_id)).run_id)
    assert seen == [{"parameters": {"list": [1, 2]}, "inputs": {}}] * 3


async def test_a_recorded_output_is_final_whatever_its_agent_does_with_it_later(
    settings: FlowSettings, end_of: EndOf
) -> None:
    box: list[int] = []

    async def keeper(task: TaskCall) -> list[int]:
        box.append(len(box))
        return box

    tasks: list[dict[str, Any]] = [
        {"name": "first", "type": "t", "required_tools": ["keeper"]},
        {"name": "second", "type": "t", "required_tools": ["keeper"]},
        {"name": "look", "preferred_agent_type": "tool", "parameters": {"first": "{{ tasks.first.output }}"}},
    ]
    async with FlowService(settings, agents=[keeper]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(*tasks))).run_id)
    assert run.output == {"first": [0], "second": [0, 1], "look": {"first": [0]}}


async def test_agents_and_tools_can_be_listed(settings: FlowSettings) -> None:
    async with FlowService(settings, agents=[Translator()]) as flows:
        view = await flows.agents()
    assert [agent.name for agent in view.agents] == ["translator", "builtin"]
    assert {"http_client", "file_reader", "translate"} <= {tool.name for tool in view.tools}
    assert set(view.disabled_tools or {}) == {"shell", "python"}
