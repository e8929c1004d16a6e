"""Built-in tools: a task's tools run as a pipeline; files and secrets are guarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import TaskCall

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}]}


async def test_a_report_is_read_shaped_and_written(tmp_path: Path, settings: FlowSettings, end_of: EndOf) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "orders.json").write_text(json.dumps([{"city": "Oslo", "sum": 3}, {"city": "Rome", "sum": 5}]))
    definition = flow(
        {
            "name": "load",
            "required_tools": ["file_reader", "data_processor"],
            "parameters": {"path": str(folder / "orders.json"), "format": "json", "query": "[].sum | sum(@)"},
        },
        {
            "name": "report",
            "required_tools": ["file_writer"],
            "parameters": {"path": str(folder / "report.txt"), "content": "total {{ tasks.load.output }}"},
        },
    )
    allowed = settings.model_copy(update={"allow_paths": (folder,)})
    async with FlowService(allowed) as flows:
        explained = await flows.explain(workflow_def=definition)
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.state == "completed", run.error
    assert (folder / "report.txt").read_text() == "total 8"
    assert explained.side_effects is not None
    assert any("writes the file" in line for line in explained.side_effects)


async def test_files_outside_the_named_folders_stay_closed(
    tmp_path: Path, settings: FlowSettings, end_of: EndOf
) -> None:
    (tmp_path / "private.txt").write_text("secret")
    read = {"name": "read", "required_tools": ["file_reader"], "parameters": {"path": str(tmp_path / "private.txt")}}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(read))).run_id)
    assert run.error is not None
    assert (run.state, run.error.kind) == ("failed", "invalid")


async def test_a_secret_reaches_its_tool_and_nothing_that_is_recorded(
    settings: FlowSettings, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "hunter2hunter2")
    received: list[str] = []

    async def sign(task: TaskCall) -> Any:
        received.append(task.parameters["key"])
        return ("signed with", {"key": (task.parameters["key"],)})

    with_secret = FlowSettings(secrets="API_KEY", retry_delay_s=0)
    task = {"name": "sign", "type": "t", "required_tools": ["sign"], "parameters": {"key": "{{ secrets.API_KEY }}"}}
    async with FlowService(with_secret, agents=[sign]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task))).run_id)
        database = flows.database
    assert received == ["hunter2hunter2"]
    assert run.output == {"sign": ["signed with", {"key": ["[secret:API_KEY]"]}]}
    recorded = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    assert b"hunter2" not in recorded
