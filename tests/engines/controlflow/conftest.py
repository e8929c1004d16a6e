"""One service and so one ControlFlow process for all tests of the folder: each start of it takes 10 s."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.views import RunView

from ..model_server import Call, ModelRequest, ModelServer, serving

KEY_VARIABLE = "TEST_MODEL_KEY"

RunFlow = Callable[..., Awaitable[RunView]]
EventsOf = Callable[[str, str], Awaitable[list[dict[str, Any]]]]


def succeed(request: ModelRequest, result: Any = "done") -> Call:
    """The call that ends the task at hand with a result."""
    name = next(name for name in request.tools if name.endswith("_successful"))
    is_object = "result" not in request.tools[name]["properties"] and "answer" not in request.tools[name]["properties"]
    if is_object:
        return Call(name, result)
    return Call(name, {next(iter(request.tools[name]["properties"])): result})


def fail(request: ModelRequest, reason: str) -> Call:
    """The call that gives the task at hand up."""
    return Call(next(name for name in request.tools if name.endswith("_failed")), {"reason": reason})


def task_of(request: ModelRequest) -> str:
    """The task at hand."""
    name = next(name for name in request.tools if name.endswith(("_successful", "_failed")))
    return name.removeprefix("mark_task_").removesuffix("_successful").removesuffix("_failed")


class Stock:
    """An agent given from Python whose tools models call."""

    name = "stock"
    agent_type = "shop"
    tools = ("count_items", "broken_scale", "open_safe")
    capacity = 4

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        self.calls.append(task.parameters)
        if task.required_tools == ("broken_scale",):
            raise ConnectionError("the scale is offline")
        return {"item": task.parameters.get("item"), "count": 7}


@pytest.fixture(scope="package")
def _server() -> Iterator[ModelServer]:
    with serving() as server:
        yield server


@pytest.fixture
def model(_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """The scripted model that the service asks; each test gives it a script."""
    monkeypatch.setenv(KEY_VARIABLE, "sk-the-right-one")
    _server.requests.clear()
    _server.left.clear()
    _server.key = None
    _server.script = succeed
    return _server


@pytest.fixture
def settings(tmp_path: Path) -> FlowSettings:
    """For a service of the test's own, without a model."""
    return FlowSettings(database=tmp_path / "flow.sqlite3", retry_delay_s=0, max_retries=0)


@pytest.fixture(scope="package")
def stock() -> Stock:
    return Stock()


@pytest.fixture(scope="package")
async def flows(
    _server: ModelServer, stock: Stock, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FlowService]:
    """A service whose engines ask the scripted model."""
    settings = FlowSettings(
        database=tmp_path_factory.mktemp("controlflow") / "flow.sqlite3",
        retry_delay_s=0,
        max_retries=1,
        circuit_failures=0,
        model="openai/scripted",
        model_base_url=_server.url,
        model_api_key_variable=KEY_VARIABLE,
        model_max_turns=6,
        model_timeout_s=60,
        model_deny_tools=("open_safe",),
        model_prices={"openai/scripted": "100000/200000"},
    )
    async with FlowService(settings, agents=[stock]) as service:
        yield service


def flow_of(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A flow of one sequential stage."""
    typed = [{"type": "agent", "description": "Do your best.", **task} for task in tasks]
    return {"stages": [{"name": "only", "tasks": typed}], **fields}


@pytest.fixture
def run_flow(flows: FlowService, model: ModelServer) -> RunFlow:
    """Run a flow on ControlFlow to its end; answers the run with its output."""

    async def run(*tasks: dict[str, Any], **fields: Any) -> RunView:
        begun = await flows.execute_flow(workflow_def=flow_of(*tasks, **fields), framework="controlflow")
        return await end_of(flows, begun.run_id)

    return run


async def end_of(flows: FlowService, run_id: str) -> RunView:
    with anyio.fail_after(120):
        await flows.wait(run_id)
    return await flows.get_run(run_id, detail="output")


@pytest.fixture
def events_of(flows: FlowService) -> EventsOf:
    """The details of a run's journal entries of a type."""

    async def events(run_id: str, type: str) -> list[dict[str, Any]]:
        return [event.details or {} for event in await flows.events(run_id) if event.type == type]

    return events


def said(request: ModelRequest) -> str:
    """All that the model was told."""
    return json.dumps(request.messages)
