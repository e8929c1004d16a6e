"""What the classes of the Python interface answer and refuse, whatever state they are in."""

from __future__ import annotations

import math
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from contexten.extensions.flow import (
    FlowExecutor,
    FlowManager,
    FlowOrchestrator,
    FlowScheduler,
    FlowService,
    FlowSettings,
)
from contexten.extensions.flow.errors import InvalidArguments, StoreError
from contexten_server.api.flows import FlowsAsked
from contexten_server.api.runs import RunsAsked
from contexten_tools.listing import ListFlows

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {
    "id": "flow",
    "stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["json_parser"], "parameters": {"text": "1"}}]}],
}


async def test_the_status_keeps_its_keys_without_monitoring(settings: FlowSettings) -> None:
    watching = FlowOrchestrator(settings=settings)
    blind = FlowOrchestrator(settings=settings, enable_monitoring=False)
    told = (await watching.get_orchestrator_status())["resource_usage"]
    untold = (await blind.get_orchestrator_status())["resource_usage"]
    assert told.keys() == untold.keys()
    assert isinstance(told["cpu_percent"], float)
    assert (untold["cpu_percent"], untold["memory_percent"]) == (None, None)


async def test_the_totals_are_those_of_the_database_before_during_and_after(settings: FlowSettings) -> None:
    orchestrator = FlowOrchestrator(settings=settings)
    seen = []
    with anyio.fail_after(20):
        seen.append(await orchestrator.get_orchestrator_status())
        await orchestrator.execute_flow_sync(workflow_def=FLOW)
        seen.append(await orchestrator.get_orchestrator_status())
        await orchestrator.aclose()
        seen.append(await orchestrator.get_orchestrator_status())
        seen.append(await FlowOrchestrator(settings=settings).get_orchestrator_status())
    totals = [(one["status"], one["resource_usage"]["total_completed"]) for one in seen]
    assert totals == [("stopped", 0), ("running", 1), ("stopped", 1), ("stopped", 1)]
    assert [one["resource_usage"]["success_rate"] for one in seen] == [0.0, 1.0, 1.0, 1.0]


async def test_a_run_that_is_answered_tells_its_deadline(settings: FlowSettings) -> None:
    manager, scheduler = FlowManager(settings=settings), FlowScheduler(settings=settings)
    with anyio.fail_after(20):
        async with manager, scheduler:
            done = await manager.execute_flow(workflow_def=FLOW, deadline=3600, on_deadline="cancel")
            queued = await scheduler.schedule_flow(FLOW, deadline=3600)
            undated = await scheduler.schedule_flow(FLOW)
            status = await manager.get_flow_status(done["run_id"])
    assert done["output"] == {"t": 1}
    assert done["deadline"] == status["deadline"]
    assert (done["deadline"]["on_deadline"], queued["deadline"]["on_deadline"]) == ("cancel", "continue")
    assert not queued["deadline"]["missed"]
    assert "deadline" not in undated


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_retries": "3"}, "max_retries"),
        ({"max_retries": None}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"retry_delay": None}, "retry_delay"),
        ({"retry_delay": "1"}, "retry_delay"),
        ({"enable_recovery": "yes"}, "enable_recovery"),
    ],
)
def test_an_executor_refuses_what_is_no_value_of_an_argument(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError, match=f"^{named} is {arguments[named]!r}; it is "):
        FlowExecutor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"max_retries": -1}, "max_retries"), ({"retry_delay": -1}, "retry_delay"), ({"retry_delay": math.nan}, "retry_")],
)
def test_an_executor_refuses_what_is_out_of_range(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FlowExecutor(**arguments)


async def test_none_is_the_default_of_a_limit_and_of_an_engine(settings: FlowSettings) -> None:
    with anyio.fail_after(20):
        async with FlowManager(settings=settings) as manager:
            run = await manager.execute_flow(workflow_def=FLOW, framework=None)
            for number in range(21):
                await manager.create_flow(flow_id=f"flow-{number}", workflow_def=FLOW)
            assert run["framework"] == "native"
            assert len(await manager.list_flows(limit=None)) == 20
            for limit in (0, 201, "5", True):
                with pytest.raises(InvalidArguments, match="limit"):
                    await manager.list_flows(limit=limit)  # type: ignore[arg-type]  # that is the point


async def test_a_flow_id_that_is_no_text_is_refused(settings: FlowSettings) -> None:
    async with FlowManager(settings=settings) as manager:
        with pytest.raises(InvalidArguments, match="flow_id"):
            await manager.create_flow(flow_id=3, workflow_def=FLOW)  # type: ignore[arg-type]  # that is the point


async def test_a_state_to_list_by_is_given_in_any_case(settings: FlowSettings) -> None:
    with anyio.fail_after(20):
        async with FlowManager(settings=settings) as manager:
            await manager.create_flow(workflow_def=FLOW)
            assert [flow["flow_id"] for flow in await manager.list_flows("IDLE")] == ["flow"]
            await manager.execute_flow("flow")
            assert [flow["flow_id"] for flow in await manager.list_flows("COMPLETED")] == ["flow"]
            assert len(await manager.list_flows("Completed", kind="runs")) == 1
            with pytest.raises(InvalidArguments, match="no state"):
                await manager.list_flows("done")


def test_every_other_entrance_takes_a_state_in_any_case_too() -> None:
    assert ListFlows.model_validate({"status_filter": "COMPLETED"}).status_filter == "completed"
    assert FlowsAsked.model_validate({"status": "Idle"}).status == "idle"
    assert RunsAsked.model_validate({"status": "RUNNING"}).status == "running"


class Slow:
    """Holds its task until it is opened; counts how often it was closed."""

    name = "slow"
    agent_type = "slow"
    tools = ("work",)
    capacity = 1

    def __init__(self) -> None:
        self.reached, self.open, self.closed = anyio.Event(), anyio.Event(), 0

    async def run(self, task: Any, context: Any) -> int:
        self.reached.set()
        await self.open.wait()
        return 1

    async def aclose(self) -> None:
        self.closed += 1


async def test_who_gives_closing_up_and_comes_again_waits_for_its_end(settings: FlowSettings) -> None:
    agent = Slow()
    manager = FlowManager(agents=[agent], settings=settings.model_copy(update={"stop_grace_s": 20.0}))
    flow = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["work"]}]}]}
    with anyio.fail_after(20):
        first = await manager.service()
        await first.execute_flow(workflow_def=flow)
        await agent.reached.wait()
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as impatient:
                group.start_soon(_until_closing, first, impatient)
                await manager.aclose()
            assert impatient.cancelled_caught
            again: list[Any] = []
            group.start_soon(_opened, manager, again)
            await anyio.wait_all_tasks_blocked()
            assert (again, agent.closed) == ([], 0)  # the first core has its agents yet
            agent.open.set()
        assert again[0] is not first
        assert agent.closed == 1
        await manager.aclose()


async def _until_closing(service: Any, scope: anyio.CancelScope) -> None:
    while service.is_open:
        await anyio.lowlevel.checkpoint()
    scope.cancel()


async def _opened(manager: FlowManager, found: list[Any]) -> None:
    found.append(await manager.service())


async def test_a_farewell_that_fails_leaves_nobody_waiting(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, told = Slow(), []
    service = FlowService(settings.model_copy(update={"stop_grace_s": 0.1}), agents=[agent])
    flow = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["work"]}]}]}

    async def fail() -> None:
        raise StoreError("the disk failed")

    async def follow(run_id: str) -> None:
        told.append(await service.wait(run_id))

    monkeypatch.setattr(service.telemetry, "finish", fail)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            await service.__aenter__()
            group.start_soon(follow, (await service.execute_flow(workflow_def=flow)).run_id)
            await agent.reached.wait()
            with pytest.raises(BaseExceptionGroup) as failed:
                await service.__aexit__(None, None, None)
    assert failed.group_contains(StoreError, match="the disk failed")
    assert [view.state for view in told] == ["running"]
