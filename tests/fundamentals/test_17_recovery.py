"""Recovery: what is done about a failure before the next attempt, and how to add to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowExecutor, FlowManager, FlowOrchestrator, FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf

    from contexten.extensions.flow.recovery.context import RecoveryContext

pytestmark = pytest.mark.anyio


class CustomError(Exception):
    """Its kind is its name in snake case: custom_error."""


def flow(**fields: Any) -> dict[str, Any]:
    task = {"name": "job", "type": "data_processing", "required_tools": ["shaky"], **fields}
    return {"stages": [{"name": "only", "tasks": [task]}]}


async def test_a_strategy_of_ones_own_for_an_error_of_ones_own() -> None:
    executor = FlowExecutor(max_retries=3, retry_delay=0, enable_recovery=True)
    asked: list[tuple[str, int, str]] = []

    async def custom_recovery(context: RecoveryContext) -> None:
        asked.append((context.task, context.attempt, context.message))
        context.log("info", "had a look at it")

    executor.recovery_strategies["custom_error"] = custom_recovery

    async def shaky(task: TaskCall, context: AttemptContext) -> str:
        if context.attempt == 1:
            raise CustomError("a matter of taste")
        return "fine"

    async with FlowManager(agents=[shaky], executor=executor) as manager:
        created = await manager.create_flow(name="custom", workflow_def=flow())
        run = await manager.execute_flow(created["flow_id"])
        events = (await manager.get_flow_status(run["run_id"], detail="events"))["events"]
    assert (run["state"], run["output"]) == ("completed", {"job": "fine"})
    assert asked == [("job", 1, "CustomError: a matter of taste")]
    (line,) = [event["details"] for event in events if event["type"] == "task.log"]
    assert line == {"level": "info", "message": "had a look at it"}


async def test_a_strategy_may_be_added_while_the_orchestrator_is_open() -> None:
    executor = FlowExecutor(retry_delay=0)

    async def shaky(task: TaskCall) -> None:
        raise CustomError

    async with FlowOrchestrator(agents=[shaky], executor=executor) as orchestrator:
        executor.recovery_strategies["custom_error"] = lambda context: False  # give up at once
        result = await orchestrator.execute_flow_sync(workflow_def=flow())
    assert result["state"] == "failed"
    assert result["error"]["attempt"] == 1


async def test_of_two_executors_on_one_database_the_last_one_counts() -> None:
    async def shaky(task: TaskCall) -> None:
        raise CustomError

    gives_up = FlowExecutor(retry_delay=0, recovery_strategies={"custom_error": lambda context: False})
    goes_on = FlowExecutor(max_retries=1, retry_delay=0)
    async with FlowManager(agents=[shaky], executor=gives_up) as manager, FlowOrchestrator(executor=goes_on):
        run = await manager.execute_flow(workflow_def=flow())
    assert run["error"]["attempt"] == 2


async def test_the_journal_tells_what_recovery_did_and_why(settings: FlowSettings, end_of: EndOf) -> None:
    async def shaky(task: TaskCall, context: AttemptContext) -> float | None:
        if context.attempt == 1:
            await anyio.sleep_forever()
        return context.timeout_s

    definition = flow(timeout_s=0.4, retry={"delay_s": 0})
    async with FlowService(settings, agents=[shaky]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        (retrying,) = [event for event in await flows.events(run.run_id) if event.type == "task.retrying"]
    assert run.output == {"job": 0.8}
    assert retrying.details is not None
    assert retrying.details["kind"] == "timeout"
    assert retrying.details["recovery"] == ["timeout raised from 0.4 s to 0.8 s"]


async def test_a_failed_run_explains_itself_and_says_what_to_call(settings: FlowSettings, end_of: EndOf) -> None:
    is_down = True

    async def shaky(task: TaskCall) -> str:
        if is_down:
            raise ConnectionError("no route")
        return "up"

    async with FlowService(settings, agents=[shaky]) as flows:
        definition = {"id": "calls", **flow(retry={"max_attempts": 2, "delay_s": 0.01, "jitter": 0})}
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        why = await flows.explain(run_id=run.run_id)
        is_down = False
        again = await flows.control(run.run_id, "retry")
        await end_of(flows, again.run_id)
        is_down = True
        run = await end_of(flows, (await flows.execute_flow(flow_id="calls")).run_id)
        known = await flows.explain(run_id=run.run_id)
    assert why.failure is not None
    assert why.failure["root_task"] == "job"
    assert (why.failure["kind"], why.failure["attempts"]) == ("network", 2)
    assert why.failure["recovery"] == [{"attempt": 1, "did": ["delay raised from 0.01 s to 0.02 s"]}]
    assert (why.next or [""])[0] == f"control_flow(run_id={why.run_id!r}, action='retry')"
    assert known.failure is not None
    assert known.failure["history"] == {"runs": 2, "failed": 1, "mended_by_retry": 0, "mended_by_rerun": 1}
