"""What the intake hears of: runs that are queued, with whatever they depend on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["gate"]}]}]}


@pytest.mark.parametrize("name", ["deadline", "dependencies"])
async def test_a_run_may_depend_on_a_flow_of_any_name(
    settings: FlowSettings, gate: Gate, end_of: EndOf, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        first = await flows.execute_flow(workflow_def=FLOW, flow_id=name)
        second = await flows.execute_flow(workflow_def=FLOW, dependencies=[name])
        gate.opened.set()
        for run in (first, second):
            assert (await end_of(flows, run.run_id)).state == "completed"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
