"""A commit that reached the disk although SQLite reported a failure: nothing is lost, nothing is done twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store.writer import Writer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", range(1, 7))
async def test_a_run_goes_on_after_a_commit_whose_failure_was_none(
    database: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ran: list[str] = []

    async def work(task: Any) -> str:
        ran.append(task.name)
        return str(task.name)

    tasks = [{"name": name, "required_tools": ["work"]} for name in ("a", "b", "c")]
    child = {"stages": [{"name": "s", "tasks": tasks[:2]}]}
    parent = {
        "stages": [
            {"name": "s", "tasks": [{"name": "sub", "type": "flow", "parameters": {"flow_id": "child"}}, tasks[2]]}
        ]
    }
    groups = 0
    run_group = Writer._run_group

    def doubtful(self: Writer, *arguments: Any) -> Any:
        nonlocal groups
        committed = run_group(self, *arguments)
        groups += armed
        if armed and groups == number:
            raise sqlite3.OperationalError("disk I/O error")
        return committed

    armed = False
    monkeypatch.setattr(Writer, "_run_group", doubtful)
    async with FlowService(FlowSettings(database=database), agents={"work": work}) as service:
        await service.create_flow(workflow_def=child, flow_id="child")
        await service.create_flow(workflow_def=parent, flow_id="parent")
        run = await service.execute_flow(flow_id="parent")
        armed = True
        with anyio.fail_after(20):
            ended = await service.wait(run.run_id)
        assert ended.state == "completed"
        report = await service.verify()
    assert report.ok, report.problems
    assert set(ran) == {"a", "b", "c"}
