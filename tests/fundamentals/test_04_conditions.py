"""Conditions decide what runs; whatever does not run says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.views import TaskView

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf

pytestmark = pytest.mark.anyio


def fail(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "required_tools": ["json_parser"], "parameters": {"text": "{"}, **fields}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks), **fields}]}


async def tasks_of(flows: FlowService, run_id: str) -> dict[str, TaskView]:
    return {task.name: task for task in (await flows.get_run(run_id, detail="tasks")).tasks or []}


async def test_a_task_whose_condition_is_false_is_skipped_and_its_dependents_run(
    settings: FlowSettings, end_of: EndOf
) -> None:
    definition = flow(
        {"name": "notify", "when": "inputs.amount > 100"},
        {"name": "record", "depends_on": ["notify"], "parameters": {"notified": "{{ tasks.notify.state }}"}},
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition, inputs={"amount": 5})).run_id)
        tasks = await tasks_of(flows, run.run_id)
    assert run.state == "completed"
    assert run.progress.completed == run.progress.total
    assert (tasks["notify"].state, tasks["notify"].reason) == ("skipped", "its condition is false")
    assert run.output == {"notify": None, "record": {"notified": "skipped"}}


async def test_a_condition_of_a_stage_skips_all_its_tasks(settings: FlowSettings, end_of: EndOf) -> None:
    definition = {
        "stages": [
            {
                "name": "extra",
                "when": "{{ has(inputs.extra) && inputs.extra }}",
                "tasks": [{"name": "a"}, {"name": "b"}],
            },
            {"name": "always", "tasks": [{"name": "c"}]},
        ]
    }
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        tasks = await tasks_of(flows, run.run_id)
    assert [tasks[name].state for name in "abc"] == ["skipped", "skipped", "completed"]
    assert tasks["a"].reason == "the condition of stage extra is false"


async def test_what_depends_on_a_failed_task_is_skipped_as_upstream_failed(
    settings: FlowSettings, end_of: EndOf
) -> None:
    definition = flow(
        fail("load"),
        {"name": "transform", "depends_on": ["load"]},
        {"name": "report", "depends_on": ["transform"]},
        execution_mode="parallel",
        continue_on_task_failure=True,
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        tasks = await tasks_of(flows, run.run_id)
    assert [tasks[name].state for name in ("load", "transform", "report")] == ["failed", "skipped", "skipped"]
    assert tasks["transform"].reason == "upstream_failed: load"
    assert (tasks["report"].reason or "").startswith("upstream_failed")


async def test_a_condition_that_names_a_failed_task_lets_its_task_run(settings: FlowSettings, end_of: EndOf) -> None:
    definition = flow(
        fail("load"),
        {
            "name": "fallback",
            "when": "tasks.load.state == 'failed'",
            "parameters": {"kind": "{{ tasks.load.error.kind }}"},
        },
        continue_on_task_failure=True,
    )
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.state == "completed"
    assert run.output["fallback"] == {"kind": "invalid"}


async def test_a_condition_that_is_neither_true_nor_false_fails_its_task(settings: FlowSettings, end_of: EndOf) -> None:
    definition = flow({"name": "odd", "when": "inputs.maybe"})
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition, inputs={"maybe": "yes"})).run_id)
    assert run.state == "failed"
    assert run.error is not None
    assert "must be true or false" in run.error.message
