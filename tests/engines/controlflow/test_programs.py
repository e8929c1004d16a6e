"""Whole programs on ControlFlow: the example, and the Python interface as its snippets show it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowManager, FlowOrchestrator, FlowPriority

from ..model_server import Call, ModelRequest, ModelServer, Reply
from .conftest import succeed, task_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[3]

WORKFLOW: dict[str, Any] = {
    "name": "Data Processing Workflow",
    "description": "Process and analyze data",
    "stages": [
        {
            "name": "data_collection",
            "execution_mode": "parallel",
            "continue_on_task_failure": False,
            "tasks": [
                {
                    "name": "fetch_api_data",
                    "type": "data_collection",
                    "required_tools": ["http_client", "json_parser"],
                    "preferred_agent_type": "data_collector",
                    "complexity": 2,
                    "parameters": {"url": "https://api.example.com/data"},
                }
            ],
        },
        {
            "name": "data_processing",
            "execution_mode": "sequential",
            "tasks": [
                {
                    "name": "process_data",
                    "type": "data_processing",
                    "required_tools": ["data_processor"],
                    "complexity": 3,
                    "parameters": {"query": "total"},
                }
            ],
        },
    ],
    "continue_on_failure": False,
    "monitoring_required": True,
    "complex_orchestration": True,
    "context": {"environment": "production", "timeout": 300},
}


@pytest.fixture
def settings_of_the_environment(model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CONTEXTEN_FLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTEN_FLOW_DATABASE", str(tmp_path / "flow.sqlite3"))
    monkeypatch.setenv("CONTEXTEN_FLOW_MODEL", "openai/scripted")
    monkeypatch.setenv("CONTEXTEN_FLOW_MODEL_BASE_URL", model.url)


def work_with_tools(request: ModelRequest) -> Reply:
    """Collects by a tool first; then says what it has."""
    if task_of(request) == "fetch_api_data" and not request.results:
        return Call("json_parser", {"text": '{"total": 7}'})
    return succeed(request, f"{task_of(request)} is done")


@pytest.mark.usefixtures("settings_of_the_environment")
async def test_the_snippets_run_on_controlflow(model: ModelServer, capfd: pytest.CaptureFixture[str]) -> None:
    model.script = work_with_tools
    orchestrator = FlowOrchestrator(max_concurrent_flows=10, enable_monitoring=True)
    await orchestrator.start()
    submitted = await orchestrator.submit_flow(
        name="data_pipeline", workflow_def=WORKFLOW, priority=FlowPriority.HIGH, framework="controlflow"
    )
    service = await orchestrator.service()
    with anyio.fail_after(120):
        await service.wait(submitted["run_id"])
    run = await service.get_run(submitted["run_id"], detail="output")
    # The same core, so the same process of ControlFlow; `auto` takes it for complex_orchestration where it is enabled.
    manager = FlowManager(enable_controlflow=True)
    flow = await manager.create_flow(name="data_pipeline", workflow_def=WORKFLOW)
    result = await manager.execute_flow(flow["flow_id"])
    await manager.aclose()
    await orchestrator.aclose()
    assert (run.state, run.framework) == ("completed", "controlflow")
    assert run.output == {"process_data": "process_data is done"}
    collecting, collected, processing = model.requests[:3]
    assert collecting.tools.keys() >= {"http_client", "json_parser"}
    assert collected.results == ['{"total": 7}']
    assert "fetch_api_data is done" in processing.system
    assert (result["state"], result["framework"]) == ("completed", "controlflow")
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("settings_of_the_environment")
async def test_the_example_runs(model: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if task_of(request) == "check":
            return succeed(request, {"verdict": "fits", "reason": "It says nothing else."})
        if "Your name is writer." in request.system:
            return Call("delegate_to_agent", {"agent_id": "editor", "message": "A kettle of steel."})
        return succeed(request, "A kettle of steel, which whistles.")

    model.script = script
    ended = await anyio.run_process(
        [sys.executable, str(ROOT / "examples" / "engines" / "controlflow_flow.py")], stderr=None
    )
    state, *usage = ended.stdout.decode().splitlines()
    assert state == 'completed {"note": "A kettle of steel, which whistles.", "verdict": "fits"}'
    assert [line.split(" ", 1)[0] for line in usage] == ["note", "check"]
    assert "Write plain English" in model.requests[0].system
