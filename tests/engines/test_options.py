"""Options of a task's agent that an engine can never do: refused when the flow is executed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import InvalidDefinition

pytest.importorskip("strands")
pytestmark = pytest.mark.anyio

PLACE = "/stages/0/tasks/0/parameters/agent"
TEAM = [{"name": "writer"}, {"name": "critic"}]
ABROAD = "bedrock/some.model"


def flow(**options: Any) -> dict[str, Any]:
    task = {"name": "work", "type": "agent", "description": "Do it.", "parameters": {"agent": options}}
    return {"stages": [{"name": "only", "tasks": [task]}], "inputs": True}


@pytest.fixture
def settings(tmp_path: Path) -> FlowSettings:
    return FlowSettings(
        database=tmp_path / "flow.sqlite3",
        model="openai/scripted",
        model_base_url="http://127.0.0.1:9/v1",
        max_retries=0,
    )


@pytest.mark.parametrize(
    ("framework", "options", "path", "says"),
    [
        ("native", {"agents": TEAM}, "/agents", "pattern to graph or swarm"),
        ("strands", {"agents": TEAM, "pattern": "single"}, "/agents", "pattern to graph or swarm"),
        ("native", {"model": ABROAD}, "/model", "not of the provider that is configured"),
        ("strands", {"model": "opnai/x"}, "/model", r"did you mean openai/\.\.\.\?"),
        (
            "native",
            {"pattern": "swarm", "agents": [*TEAM, {"name": "far", "model": ABROAD}]},
            "/agents/2/model",
            "not of the provider that is configured",
        ),
        ("controlflow", {"pattern": "swarm", "agents": TEAM}, "/pattern", "turn_strategy"),
        ("controlflow", {"pattern": "graph", "agents": TEAM, "edges": [["writer", "critic"]]}, "/pattern", "turns"),
        ("controlflow", {"model": ABROAD}, "/model", "OpenAI's interface only"),
    ],
)
async def test_what_the_engine_can_never_do_is_refused_before_the_run(
    settings: FlowSettings, framework: str, options: dict[str, Any], path: str, says: str
) -> None:
    if framework == "controlflow":
        pytest.importorskip("controlflow")
    async with FlowService(settings) as flows:
        with pytest.raises(InvalidDefinition, match=says) as refused:
            await flows.execute_flow(workflow_def=flow(**options), framework=framework)
        assert (await flows.list_runs()).runs == []
    assert [(issue.path, issue.code) for issue in refused.value.issues] == [(PLACE + path, "unfit_option")]


async def test_what_another_engine_can_do_is_saved(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        saved = await flows.create_flow(workflow_def=flow(agents=TEAM))
    assert saved.warnings == []


@pytest.mark.parametrize(
    "options",
    [
        {"model": "openai/other"},
        {"model": "{{ inputs.model }}"},
        {"agents": TEAM, "pattern": "swarm"},
        {"agents": "{{ inputs.team }}", "pattern": "graph"},
    ],
)
async def test_what_it_can_do_is_taken(settings: FlowSettings, options: dict[str, Any]) -> None:
    async with FlowService(settings) as flows:
        started = await flows.execute_flow(workflow_def=flow(**options), framework="native")
        assert started.run_id


async def test_native_tells_that_agents_need_a_model_where_none_is_there(settings: FlowSettings) -> None:
    notes = []
    for model in (None, "openai/scripted"):
        async with FlowService(settings.model_copy(update={"model": model})) as flows:
            (native,) = (engine for engine in (await flows.agents()).engines if engine.name == "native")
            assert native.available
            notes.append(native.note or "")
    assert ["type agent once they have a model" in note for note in notes] == [True, False]
