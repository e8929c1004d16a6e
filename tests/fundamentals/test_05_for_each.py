"""for_each runs a task once for each item of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


async def odd_only(task: TaskCall) -> int:
    number = int(task.parameters["n"])
    if number % 2 == 0:
        raise AttemptError(f"{number} is even", kind="invalid")
    return number


def each(items: Any, **fields: Any) -> dict[str, Any]:
    task = {"name": "each", "for_each": items, "parameters": {"n": "{{ item }}"}, **fields}
    return {"stages": [{"name": "only", "tasks": [task]}]}


async def test_the_output_is_the_outputs_of_the_items_in_order(settings: FlowSettings, end_of: EndOf) -> None:
    flow = each("inputs.numbers", parameters={"square": "{{ item * item }}", "place": "{{ index }}"})
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow, inputs={"numbers": [3, 1, 2]})).run_id)
    assert run.output == {"each": [{"square": 9, "place": 0}, {"square": 1, "place": 1}, {"square": 4, "place": 2}]}


async def test_an_empty_list_completes_with_an_empty_list(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=each([]))).run_id)
    assert (run.state, run.output) == ("completed", {"each": []})


async def test_the_list_may_come_from_an_earlier_task(settings: FlowSettings, end_of: EndOf) -> None:
    flow = each("tasks.list.output.urls")
    flow["stages"][0]["tasks"].insert(0, {"name": "list", "parameters": {"urls": ["a", "b"]}})
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.output["each"] == [{"n": "a"}, {"n": "b"}]


async def test_one_failed_item_fails_the_task_and_says_which(settings: FlowSettings, end_of: EndOf) -> None:
    flow = each([1, 2, 3], type="test", required_tools=["odd_only"])
    async with FlowService(settings, agents=[odd_only]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.message == "Item 1 failed: 2 is even"


async def test_continue_on_item_failure_gives_null_for_the_failed_ones(settings: FlowSettings, end_of: EndOf) -> None:
    flow = each([1, 2, 3], type="test", required_tools=["odd_only"], continue_on_item_failure=True)
    async with FlowService(settings, agents=[odd_only]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
        tasks = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
    assert (run.state, run.output) == ("completed", {"each": [1, None, 3]})
    assert tasks[0].items == {"completed": 2, "failed": 1}
    assert (run.failed_tasks, tasks[0].reason) == (["each"], "1 of 3 items failed")


async def test_its_failed_items_are_not_forgotten_over_a_restart(
    settings: FlowSettings, end_of: EndOf, gate: Gate
) -> None:
    flow = each([1, 2, 3], type="test", required_tools=["odd_only"], continue_on_item_failure=True)
    flow["stages"].append({"name": "then", "tasks": [{"name": "hold", "type": "t", "required_tools": ["gate"]}]})
    async with FlowService(settings.model_copy(update={"stop_grace_s": 0.0}), agents=[odd_only, gate]) as flows:
        run_id = (await flows.execute_flow(workflow_def=flow)).run_id
        with anyio.fail_after(30):
            await gate.reached.wait()
    gate.opened.set()
    async with FlowService(settings, agents=[odd_only, gate]) as flows:
        run = await end_of(flows, run_id)
    assert (run.state, run.failed_tasks) == ("completed", ["each"])


async def test_its_attempts_are_those_of_its_items(settings: FlowSettings, end_of: EndOf) -> None:
    calls = 0

    async def second_try(task: TaskCall) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise AttemptError("not yet", kind="network")
        return await odd_only(task)

    fields = {"type": "test", "required_tools": ["second_try"], "retry": {"delay_s": 0}}
    flow = each([1, 3, 5], max_parallel=1, **fields)
    async with FlowService(settings, agents=[second_try]) as flows:
        for items, attempts in (([1, 3, 5], 4), ([1, 2, 5], 2)):
            flow["stages"][0]["tasks"][0]["for_each"] = items
            run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
            (task,) = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
            assert task.attempts == attempts, run.state
            later = await flows.get_run(run.run_id, detail="tasks", since=run.cursor)
            assert later.tasks == []


async def test_max_parallel_bounds_the_items_at_once(settings: FlowSettings, end_of: EndOf) -> None:
    running = most = 0

    class Counter:
        name = "counter"
        tools = ("count",)
        capacity = 100

        async def run(self, task: TaskCall, context: AttemptContext) -> int | None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await anyio.lowlevel.checkpoint()
            running -= 1
            return context.item_index

    flow = each(list(range(9)), type="test", required_tools=["count"], max_parallel=3)
    async with FlowService(settings, agents=[Counter()]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow)).run_id)
    assert run.output == {"each": list(range(9))}
    assert most == 3


async def test_what_is_no_list_fails_the_task(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=each("inputs.n"), inputs={"n": 3})).run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert "not a list" in run.error.message
