"""Runs that cannot be recorded: who asks is told, and nothing turns for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import StoreBusy, StoreConflict, StoreError
from contexten.extensions.flow.flows.saving import SavedFlow

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["work"]}]}]}


async def work(_task: Any) -> int:
    return 1


@pytest.fixture
def agents() -> dict[str, Any]:
    return {"work": work}


async def forbid(flows: FlowService, statement: str) -> None:
    """Let the schema refuse all such statements."""
    trigger = f"CREATE TRIGGER forbidden BEFORE {statement} BEGIN SELECT RAISE(ABORT, 'forbidden'); END"
    await flows._store.write(lambda tx: tx.execute(trigger))


@pytest.mark.parametrize("drives", [True, False])
async def test_a_run_whose_row_the_schema_refuses_is_told_to_who_submits_it(
    settings: FlowSettings, agents: dict[str, Any], end_of: EndOf, *, drives: bool
) -> None:
    async with FlowService(settings, agents=agents) as flows:
        earlier = await flows.execute_flow(workflow_def=FLOW, flow_id="x")
        assert (await end_of(flows, earlier.run_id)).state == "completed"
    async with FlowService(settings, agents=agents, drive=drives) as flows:
        await forbid(flows, "INSERT ON runs")
        with anyio.fail_after(5):
            with pytest.raises(StoreConflict):
                await flows.execute_flow(flow_id="x")
            with pytest.raises(StoreError):
                await flows.run_flow(flow_id="x")
            with pytest.raises(StoreError):
                await flows.control(earlier.run_id, "rerun_from", task="t")


async def test_a_run_of_a_flow_that_changes_each_time_is_refused_as_busy(
    settings: FlowSettings, agents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FlowService(settings, agents=agents) as flows:
        await flows.create_flow(workflow_def=FLOW, flow_id="x")
        old = await flows._flows.saved("x", None)
        await flows.update_flow("x", workflow_def={**FLOW, "description": "another"})
        asked = 0

        async def saved(_flow_id: str, _version: int | None) -> SavedFlow:
            nonlocal asked
            asked += 1
            return old

        monkeypatch.setattr(flows._flows, "saved", saved)
        with anyio.fail_after(5), pytest.raises(StoreBusy) as caught:
            await flows.execute_flow(flow_id="x")
        assert caught.value.retryable
        assert 1 < asked <= 10


async def test_a_run_whose_move_the_schema_refuses_is_given_back(
    settings: FlowSettings, agents: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("contexten.extensions.flow.execution.conductor.TAKE_BACK_S", 0.001)
    async with FlowService(settings, agents=agents) as flows:
        await flows.create_flow(workflow_def=FLOW, flow_id="x")
        await forbid(flows, "UPDATE OF output ON tasks")
        run = await flows.execute_flow(flow_id="x")
        conductor = flows._driver.conductor
        assert conductor is not None
        with anyio.fail_after(10):
            while conductor.refused != [run.run_id]:
                await anyio.lowlevel.checkpoint()
    assert "this process takes it no more" in caplog.text
