"""A definition may be submitted under any name: its flow is the same, the run is called as it was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowManager, FlowOrchestrator, FlowScheduler, FlowService, FlowSettings
from contexten.extensions.flow.errors import FlowExists, IdempotencyConflict, InvalidArguments

pytestmark = pytest.mark.anyio

TASK: dict[str, Any] = {"name": "t", "required_tools": ["json_parser"], "parameters": {"text": "1"}}
SEED: dict[str, Any] = {"id": "seed", "name": "Data flow", "stages": [{"name": "s", "tasks": [TASK]}]}
OTHER: dict[str, Any] = {**SEED, "stages": [{"name": "other", "tasks": [TASK]}]}


@pytest.fixture
async def flows(settings: FlowSettings) -> AsyncIterator[FlowService]:
    async with FlowService(settings, drive=False) as service:
        yield service


async def test_one_definition_is_used_under_many_names(settings: FlowSettings) -> None:
    manager = FlowManager(settings=settings)
    orchestrator = FlowOrchestrator(settings=settings)
    scheduler = FlowScheduler(settings=settings)
    with anyio.fail_after(20):
        async with manager, orchestrator, scheduler:
            await manager.create_flow(name="Data Processing", workflow_def=SEED)
            runs = [
                await orchestrator.submit_flow(name="urgent", workflow_def=SEED),
                await orchestrator.execute_flow_sync(name="now", workflow_def=SEED),
                await scheduler.schedule_flow(workflow="report", workflow_def=SEED),
                await scheduler.schedule_flow(workflow=SEED),
                await manager.execute_flow(workflow_def=SEED),
                await manager.execute_flow(workflow_def={**SEED, "description": "what it is for"}),
                await manager.execute_flow("seed"),
            ]
            (flow,) = await manager.list_flows()
    assert [run["name"] for run in runs] == [
        "urgent",
        "now",
        "report",
        "Data flow",
        "Data flow",
        "Data flow",
        "Data Processing",
    ]
    assert {(run["flow_id"], run["version"]) for run in runs} == {("seed", 1)}
    assert (flow["name"], flow["runs"]) == ("Data Processing", len(runs))


async def test_creating_it_under_another_name_is_refused(flows: FlowService) -> None:
    await flows.create_flow(name="Data Processing", workflow_def=SEED)
    assert (await flows.create_flow(name="Data Processing", workflow_def=SEED)).existing
    with pytest.raises(FlowExists) as caught:
        await flows.create_flow(name="Other", workflow_def=SEED)
    assert "update_flow" in (caught.value.next or "")


async def test_a_submission_runs_the_latest_version_with_its_content(flows: FlowService) -> None:
    await flows.create_flow(workflow_def=SEED)
    await flows.update_flow("seed", workflow_def={**SEED, "name": "Renamed"})
    await flows.update_flow("seed", workflow_def=OTHER)
    run = await flows.execute_flow(workflow_def=SEED)
    assert (run.version, run.name) == (2, "Data flow")
    assert (await flows.execute_flow(workflow_def=OTHER, name="mine")).version == 3
    with pytest.raises(FlowExists):
        await flows.execute_flow(workflow_def={**SEED, "tags": ["new"]})


async def test_a_name_is_part_of_what_a_key_asks_for(flows: FlowService) -> None:
    await flows.create_flow(name="Data Processing", workflow_def=SEED)
    first = await flows.execute_flow(name="urgent", workflow_def=SEED, idempotency_key="k")
    again = await flows.execute_flow(name="urgent", workflow_def=SEED, idempotency_key="k")
    assert (again.run_id, again.existing) == (first.run_id, True)
    with pytest.raises(IdempotencyConflict):
        await flows.execute_flow(name="other", workflow_def=SEED, idempotency_key="k")


async def test_a_key_answers_the_run_that_made_its_flow(flows: FlowService) -> None:
    first = await flows.execute_flow(name="urgent", workflow_def=SEED, idempotency_key="k")
    await flows.update_flow("seed", workflow_def=OTHER)
    again = await flows.execute_flow(name="urgent", workflow_def=SEED, idempotency_key="k")
    assert (again.run_id, again.existing) == (first.run_id, True)


async def test_a_rerun_is_called_as_its_run_was(flows: FlowService) -> None:
    await flows.create_flow(workflow_def=SEED)
    run = await flows.execute_flow(flow_id="seed", name="urgent")
    await flows.control(run.run_id, "cancel")
    rerun = await flows.control(run.run_id, "retry")
    assert (await flows.get_run(rerun.run_id)).name == "urgent"


@pytest.mark.parametrize("given", [{"flow_id": "seed"}, {"workflow_def": SEED}])
async def test_a_name_that_is_no_text_is_refused(flows: FlowService, given: dict[str, Any]) -> None:
    await flows.create_flow(workflow_def=SEED)
    with pytest.raises(InvalidArguments, match="name must be text"):
        await flows.execute_flow(name=3, **given)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArguments, match="name must be text"):
        await flows.create_flow(name=3, workflow_def=SEED)  # type: ignore[arg-type]  # that is the point
