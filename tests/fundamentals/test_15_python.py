"""The Python interface as programs use it: a manager, an orchestrator, a scheduler, an executor over one core.

Nothing is passed here but what the snippets show; CONTEXTEN_FLOW_DATABASE names the file.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import (
    FlowExecutor,
    FlowManager,
    FlowOrchestrator,
    FlowPriority,
    FlowScheduler,
    FlowSettings,
    FlowTimeout,
    SchedulingStrategy,
)
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import Closing, EngineUnavailable, FlowError

pytestmark = pytest.mark.anyio

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
    "complex_orchestration": False,
    "context": {"environment": "production", "timeout": 300},
}


class DataAgent:
    """Stands for the network: offers the tools of the workflow."""

    name = "data_agent"
    agent_type = "data_collector"
    tools = ("http_client", "json_parser", "data_processor")
    capacity = 4

    def __init__(self) -> None:
        self.opened = anyio.Event()
        self.opened.set()

    async def run(self, task: TaskCall, context: AttemptContext) -> dict[str, Any]:
        await self.opened.wait()
        return {"task": task.name, "environment": context.context["environment"]}


@pytest.fixture
def agents() -> list[Any]:
    return [DataAgent()]


async def test_flow_manager(agents: list[Any]) -> None:
    flow_manager = FlowManager(agents=agents, enable_prefect=True, enable_controlflow=True)
    flow = await flow_manager.create_flow(name="data_pipeline", workflow_def=WORKFLOW)
    result = await flow_manager.execute_flow(flow["flow_id"])
    status = await flow_manager.get_flow_status(flow["flow_id"])
    flows = await flow_manager.list_flows(status_filter="completed", limit=10)
    await flow_manager.aclose()
    assert result["state"] == status["state"] == "completed"
    assert result["output"] == {"process_data": {"task": "process_data", "environment": "production"}}
    assert isinstance(flows, list)
    assert [row["flow_id"] for row in flows] == [flow["flow_id"]]


async def test_flow_orchestrator(agents: list[Any]) -> None:
    orchestrator = FlowOrchestrator(agents=agents, max_concurrent_flows=10, enable_monitoring=True)
    await orchestrator.start()
    submitted = await orchestrator.submit_flow(
        name="data_pipeline", workflow_def=WORKFLOW, priority=FlowPriority.HIGH, framework="auto"
    )
    result = await orchestrator.execute_flow_sync(name="quick_task", workflow_def=WORKFLOW, timeout=60.0)
    service = await orchestrator.service()
    with anyio.fail_after(30):
        await service.wait(submitted["run_id"])
    status = await orchestrator.get_orchestrator_status()
    await orchestrator.aclose()
    assert {"run_id", "flow_id", "state"} <= submitted.keys()
    assert submitted["priority"] == FlowPriority.HIGH
    assert result["output"]["process_data"]["task"] == "process_data"
    assert status["status"] == "running"
    usage = status["resource_usage"]
    assert (usage["active_flows"], usage["queued"], usage["total_completed"], usage["total_failed"]) == (0, 0, 2, 0)
    assert usage["success_rate"] == 1.0
    assert {"cpu_percent", "memory_percent"} <= usage.keys()
    assert [agent["name"] for agent in usage["agents"]] == ["data_agent", "builtin"]


async def test_flow_scheduler(agents: list[Any]) -> None:
    scheduler = FlowScheduler(
        agents=agents, strategy=SchedulingStrategy.PRIORITY, max_concurrent_flows=5, enable_load_balancing=True
    )
    await scheduler.start()
    run = await scheduler.schedule_flow(
        workflow="critical_pipeline", workflow_def=WORKFLOW, priority=FlowPriority.CRITICAL
    )
    service = await scheduler.service()
    with anyio.fail_after(30):
        ended = await service.wait(run["run_id"])
    status = scheduler.get_scheduler_status()
    await scheduler.aclose()
    assert ended.name == "critical_pipeline"
    assert (status["running"], status["pending_flows"], status["strategy"]) == (True, 0, "priority")
    assert 0 <= status["system_load"] <= 100


@pytest.mark.parametrize("strategy", list(SchedulingStrategy))
async def test_flow_scheduler_with_deadline_and_dependencies(agents: list[Any], strategy: SchedulingStrategy) -> None:
    scheduler = FlowScheduler(agents=agents, strategy=strategy, max_concurrent_flows=5, enable_load_balancing=True)
    await scheduler.start()
    agents[0].opened = anyio.Event()  # so that the second comes before the first has ended
    first = await scheduler.schedule_flow(
        workflow="critical_pipeline", workflow_def=WORKFLOW, priority=FlowPriority.CRITICAL
    )
    second = await scheduler.schedule_flow(
        workflow="batch_processing",
        workflow_def=WORKFLOW,
        priority=FlowPriority.BACKGROUND,
        deadline=datetime.now() + timedelta(hours=2),  # noqa: DTZ005 - a naive one is what many pass
        dependencies=[first["run_id"]],
    )
    agents[0].opened.set()
    service = await scheduler.service()
    with anyio.fail_after(30):
        ended = await service.wait(second["run_id"])
        assert (await service.get_run(first["run_id"])).state == "completed"
    status = scheduler.get_scheduler_status()
    await scheduler.aclose()
    assert (second["state"], second["held_by"]) == ("scheduled", "dependencies")
    assert (ended.state, ended.name) == ("completed", "batch_processing")
    assert ended.deadline is not None
    assert abs(datetime.fromisoformat(ended.deadline.at).timestamp() - time.time() - 7200) < 60
    assert status["strategy"] == strategy


@pytest.mark.parametrize(
    ("executor", "tries"), [(FlowExecutor(max_retries=2, retry_delay=0), 3), (FlowExecutor(0, 0), 1)]
)
@pytest.mark.parametrize("facade", [FlowManager, FlowOrchestrator, FlowScheduler])
async def test_flow_executor_says_how_often_tasks_are_tried(
    facade: type[FlowManager | FlowOrchestrator | FlowScheduler], executor: FlowExecutor, tries: int
) -> None:
    calls: list[int] = []

    async def down(task: TaskCall, context: AttemptContext) -> None:
        calls.append(context.attempt)
        raise ConnectionError

    task = {"name": "call", "type": "t", "required_tools": ["down"]}
    async with facade(agents=[down], executor=executor) as flows:
        service = await flows.service()
        run = await service.execute_flow(workflow_def={"stages": [{"name": "s", "tasks": [task]}]})
        with anyio.fail_after(30):
            ended = await service.wait(run.run_id)
    assert ended.error is not None
    assert ended.error.kind == "network"
    assert len(calls) == tries


async def test_an_executor_given_to_the_second_of_two_counts_too() -> None:
    calls: list[int] = []

    async def down(task: TaskCall, context: AttemptContext) -> None:
        calls.append(context.attempt)
        raise ConnectionError

    task = {"name": "call", "type": "t", "required_tools": ["down"]}
    async with FlowManager(agents=[down]), FlowOrchestrator(executor=FlowExecutor(max_retries=0)) as orchestrator:
        result = await orchestrator.execute_flow_sync(workflow_def={"stages": [{"name": "s", "tasks": [task]}]})
    assert result["state"] == "failed"
    assert calls == [1]


async def test_all_of_them_share_one_core_and_their_agents_merge(agents: list[Any]) -> None:
    async def summarise(task: TaskCall) -> str:
        return "short"

    manager, orchestrator, scheduler = FlowManager(agents=agents), FlowOrchestrator(agents=[summarise]), FlowScheduler()
    await manager.start()
    await orchestrator.start()
    await scheduler.start()
    assert await manager.service() is await orchestrator.service() is await scheduler.service()
    task = {"name": "sum_up", "type": "t", "required_tools": ["summarise"]}
    flow = await manager.create_flow(workflow_def={"stages": [{"name": "s", "tasks": [task]}]})
    run = await scheduler.schedule_flow(workflow=flow["flow_id"])
    await manager.aclose()
    await manager.aclose()  # giving up twice is giving up once
    service = await scheduler.service()
    with anyio.fail_after(30):
        assert (await service.wait(run["run_id"])).state == "completed"
    await orchestrator.aclose()
    await scheduler.aclose()


async def test_a_second_one_with_other_settings_is_refused_and_told_which() -> None:
    async with FlowManager(settings=FlowSettings(max_retries=5)) as manager:
        for same in (None, FlowSettings(), FlowSettings(max_retries=5)):  # what is not said is not another setting
            async with FlowOrchestrator(settings=same):
                assert manager.is_open
        other = FlowScheduler(settings=FlowSettings(max_retries=2, retry_delay_s=9.0))
        with pytest.raises(ValueError, match="max_retries, retry_delay_s differ"):
            await other.start()
        assert not other.is_open
    await other.start()
    await other.aclose()


async def test_start_is_idempotent_and_works_again_after_aclose(agents: list[Any]) -> None:
    manager = FlowManager(agents=agents)
    await manager.start()
    await manager.start()
    flow = await manager.create_flow(workflow_def=WORKFLOW)
    await manager.aclose()
    assert not manager.is_open
    await manager.start()
    assert (await manager.execute_flow(flow["flow_id"]))["state"] == "completed"
    await manager.aclose()


async def test_opening_while_another_closes_waits_for_it() -> None:
    manager, orchestrator = FlowManager(), FlowOrchestrator()
    await manager.start()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(manager.aclose)
            group.start_soon(orchestrator.start)
    assert (await orchestrator.get_orchestrator_status())["status"] == "running"
    await orchestrator.aclose()


async def test_status_may_be_asked_before_start() -> None:
    assert FlowScheduler().get_scheduler_status()["running"] is False
    status = await FlowOrchestrator().get_orchestrator_status()
    assert status["status"] == "stopped"
    assert status["resource_usage"]["active_flows"] == 0


async def test_a_timeout_cancels_the_run() -> None:
    wait = {"name": "long", "type": "wait", "parameters": {"seconds": 3600}}
    async with FlowOrchestrator() as orchestrator, FlowManager() as manager:
        with pytest.raises(FlowTimeout) as caught:
            await orchestrator.execute_flow_sync(
                workflow_def={"stages": [{"name": "s", "tasks": [wait]}]}, timeout=0.05
            )
        (run,) = await manager.list_flows(kind="runs")
    assert isinstance(caught.value, TimeoutError)
    assert run["state"] == "cancelled"


async def test_a_core_that_closes_ends_the_waiting_for_a_run_with_a_clear_error() -> None:
    orchestrator = FlowOrchestrator()
    wait = {"name": "long", "type": "wait", "parameters": {"seconds": 3600}}
    errors: list[BaseException] = []

    async def run() -> None:
        try:
            await orchestrator.execute_flow_sync(workflow_def={"stages": [{"name": "s", "tasks": [wait]}]})
        except FlowError as error:
            errors.append(error)

    await orchestrator.start()
    service = await orchestrator.service()
    parked = anyio.Event()
    service.subscribe(lambda change: parked.set() if change.state == "waiting" else None)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await parked.wait()
            await orchestrator.aclose()
    assert isinstance(errors[0], Closing)


async def test_an_engine_that_is_switched_off_is_refused_by_name(agents: list[Any]) -> None:
    async with FlowManager(agents=agents, enable_prefect=False) as manager:
        with pytest.raises(EngineUnavailable, match="enable_prefect=False"):
            await manager.execute_flow(workflow_def=WORKFLOW, framework="prefect")


async def test_an_engine_that_is_not_installed_is_a_warning_until_it_is_asked_for(
    agents: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("contexten.extensions.flow.facades.manager", "contexten.extensions.flow.engines.choice"):
        monkeypatch.setattr(f"{module}.installed_version", lambda name: None)
    with caplog.at_level(logging.WARNING):
        async with FlowManager(agents=agents, enable_controlflow=True) as manager:
            with pytest.raises(EngineUnavailable):
                await manager.execute_flow(workflow_def=WORKFLOW, framework="controlflow")
            complex_one = {**WORKFLOW, "complex_orchestration": True}
            assert (await manager.execute_flow(workflow_def=complex_one))["framework"] == "native"
    assert any("controlflow" in record.getMessage() for record in caplog.records)


async def test_the_log_at_debug_tells_the_story_of_a_run(agents: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="contexten.extensions.flow"):
        async with FlowManager(agents=agents) as manager:
            run = await manager.execute_flow(workflow_def=WORKFLOW)
    story = [record.getMessage() for record in caplog.records if run["run_id"] in record.getMessage()]
    assert any(line.startswith("task.running: ") and line.endswith("task process_data attempt 1") for line in story)
    assert any(line.startswith("task.completed: ") and "task process_data" in line for line in story)
    assert any(line.startswith("run.completed: ") for line in story)
