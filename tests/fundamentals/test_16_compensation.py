"""Compensation: what on_failure tasks undo when a run fails, in which order, and what they see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError, TaskNotFound

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

ONCE = {"max_attempts": 1}


class Travel:
    """An agent that books and cancels, and writes down what it did."""

    name = "travel"
    agent_type = "travel"
    tools = ("travel",)
    capacity = 10

    def __init__(self) -> None:
        self.done: list[str] = []
        self.told: list[dict[str, Any]] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        self.done.append(task.name)
        self.told.append(task.parameters)
        if task.parameters.get("fails", 0) >= context.attempt:
            raise AttemptError(f"{task.name} is sold out", kind="sold_out")
        return {"id": task.name.upper()}


def step(name: str, *, fails: int = 0, **fields: Any) -> dict[str, Any]:
    parameters = {"fails": fails, **fields.pop("parameters", {})}
    return {"name": name, "type": "travel", "required_tools": ["travel"], "retry": ONCE, **fields} | {
        "parameters": parameters
    }


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    stage = {"name": "trip", "tasks": list(tasks), **fields.pop("stage", {})}
    return {"stages": [stage], **fields}


async def tasks_of(flows: FlowService, run_id: str) -> dict[str, tuple[str, str | None]]:
    views = (await flows.get_run(run_id, detail="tasks")).tasks or []
    return {view.name: (view.state, view.reason) for view in views}


async def until(flows: FlowService, run_id: str, event: str) -> None:
    """Wait until the journal says that it happened."""
    cursor = (await flows.get_run(run_id)).cursor
    with anyio.fail_after(30):
        while event not in [entry.type for entry in await flows.events(run_id)]:
            cursor = (await flows.wait(run_id, until="change", since=cursor)).cursor


async def test_a_saga_undoes_the_bookings_that_were_made(settings: FlowSettings, end_of: EndOf) -> None:
    trip = flow(
        step("flight"),
        step("hotel"),
        step("car", fails=1),
        on_failure=[
            step("return_car", when="tasks.car.state == 'completed'"),
            step(
                "cancel_hotel",
                when="tasks.hotel.state == 'completed'",
                parameters={"id": "{{ tasks.hotel.output.id }}", "because": "{{ failure.message }}"},
            ),
            step("cancel_flight", parameters={"after": "{{ failure.task }}: {{ failure.kind }}"}),
        ],
    )
    travel = Travel()
    async with FlowService(settings, agents=[travel]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=trip)).run_id)
        found = await tasks_of(flows, run.run_id)
    assert travel.done == ["flight", "hotel", "car", "cancel_hotel", "cancel_flight"]
    assert travel.told[3] == {"fails": 0, "id": "HOTEL", "because": "car is sold out"}
    assert travel.told[4]["after"] == "car: sold_out"
    assert found["return_car"] == ("skipped", "its condition is false")
    assert (run.state, run.failed_tasks) == ("failed", ["car"])
    assert run.error is not None
    assert (run.error.task, run.error.kind) == ("car", "sold_out")


async def test_the_failure_that_came_last_is_compensated_first_and_the_flow_at_the_end(
    settings: FlowSettings, end_of: EndOf, gate: Gate
) -> None:
    trip = flow(
        step("early", fails=1, on_failure=[step("early_1"), step("early_2", parameters={"for": "{{ failure.task }}"})]),
        {"name": "hold", "type": "gate", "required_tools": ["gate"]},
        step("late", fails=1, depends_on=["hold"], on_failure=[step("late_1")]),
        stage={"execution_mode": "parallel"},
        on_failure=[step("all")],
    )
    trip["stages"][0]["continue_on_task_failure"] = True
    trip["output"] = "{{ tasks.late.output.id }}"  # cannot be made: the run fails for that
    travel = Travel()
    async with FlowService(settings, agents=[travel, gate]) as flows:
        run_id = (await flows.execute_flow(workflow_def=trip)).run_id
        await until(flows, run_id, "task.failed")
        gate.opened.set()
        run = await end_of(flows, run_id)
    assert travel.done == ["early", "late", "late_1", "early_1", "early_2", "all"]
    assert travel.told[4]["for"] == "early"
    assert run.state == "failed"


async def test_a_tolerated_failure_is_compensated_too_and_the_run_completes(
    settings: FlowSettings, end_of: EndOf
) -> None:
    trip = flow(
        step("car", fails=1, on_failure=[step("take_bus")]),
        step("hotel"),
        stage={"continue_on_task_failure": True},
        on_failure=[step("go_home")],
    )
    travel = Travel()
    async with FlowService(settings, agents=[travel]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=trip)).run_id)
        found = await tasks_of(flows, run.run_id)
    assert travel.done == ["car", "hotel", "take_bus"]
    assert found["go_home"] == ("skipped", "every failure was tolerated")
    assert (run.state, run.failed_tasks) == ("completed", ["car"])
    assert run.output == {"car": None, "hotel": {"id": "HOTEL"}}


async def test_where_nothing_failed_nothing_is_compensated_and_all_counts_as_done(
    settings: FlowSettings, end_of: EndOf
) -> None:
    trip = flow(step("hotel", on_failure=[step("camp")]), on_failure=[step("go_home")])
    travel = Travel()
    async with FlowService(settings, agents=[travel]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=trip)).run_id)
        found = await tasks_of(flows, run.run_id)
        assert (await flows.verify()).ok
    assert travel.done == ["hotel"]
    assert found["camp"] == found["go_home"] == ("skipped", "nothing failed")
    assert (run.state, run.progress.completed, run.progress.total) == ("completed", 3, 3)


async def test_a_failed_compensation_is_recorded_and_the_rest_still_run(settings: FlowSettings, end_of: EndOf) -> None:
    trip = flow(
        step("car", fails=1),
        on_failure=[
            step("call", fails=9, retry={"max_attempts": 2, "delay_s": 0}),
            step("write", for_each=["mail", "letter"], parameters={"by": "{{ item }}", "of": "{{ failure.task }}"}),
            step("report", parameters={"call": "{{ tasks.call.error.message }}"}),
        ],
    )
    travel = Travel()
    async with FlowService(settings, agents=[travel]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=trip)).run_id)
        found = await tasks_of(flows, run.run_id)
        assert (await flows.verify()).ok
    assert travel.done == ["car", "call", "call", "write", "write", "report"]
    assert sorted(told["by"] for told in travel.told if "by" in told) == ["letter", "mail"]
    assert travel.told[-1]["call"] == "call is sold out"
    assert found["call"][0] == "failed"
    assert (run.state, run.failed_tasks) == ("failed", ["car", "call"])
    assert run.error is not None
    assert run.error.task == "car"


async def test_a_cancelled_run_starts_no_compensation(settings: FlowSettings, end_of: EndOf, gate: Gate) -> None:
    trip = flow({"name": "hold", "type": "gate", "required_tools": ["gate"]}, on_failure=[step("go_home")])
    travel = Travel()
    async with FlowService(settings, agents=[travel, gate]) as flows:
        run_id = (await flows.execute_flow(workflow_def=trip)).run_id
        await gate.reached.wait()
        await flows.control(run_id, "cancel")
        run = await end_of(flows, run_id)
        found = await tasks_of(flows, run_id)
    assert run.state == "cancelled"
    assert found["go_home"][0] == "cancelled"
    assert travel.done == []


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_compensation_under_way_is_cut_off_with_its_run(
    settings: FlowSettings, end_of: EndOf, gate: Gate, how: str
) -> None:
    trip = flow(
        step("car", fails=1),
        on_failure=[{"name": "hold", "type": "gate", "required_tools": ["gate"]}, step("go_home")],
    )
    travel = Travel()
    async with FlowService(settings, agents=[travel, gate]) as flows:
        timeout_s = 3 if how == "timeout" else None
        run_id = (await flows.execute_flow(workflow_def=trip, timeout_s=timeout_s)).run_id
        await gate.reached.wait()
        if how == "cancel":
            await flows.control(run_id, "cancel")
        run = await end_of(flows, run_id)
        found = await tasks_of(flows, run_id)
        assert (await flows.verify()).ok
    assert travel.done == ["car"]
    assert [found["hold"][0], found["go_home"][0]] == ["cancelled", "cancelled"]
    assert run.failed_tasks == ["car"]
    if how == "cancel":
        assert run.state == "cancelled"
    else:
        assert (run.state, run.error and run.error.task) == ("failed", "car")  # what failed it, not the time


async def test_a_new_run_takes_over_no_compensation(settings: FlowSettings, end_of: EndOf) -> None:
    trip = flow(step("flight"), step("car", fails=1), on_failure=[step("go_home")])
    travel = Travel()
    async with FlowService(settings, agents=[travel]) as flows:
        first = await end_of(flows, (await flows.execute_flow(workflow_def=trip)).run_id)
        again = await flows.control(first.run_id, "retry")
        await end_of(flows, again.run_id)
        with pytest.raises(TaskNotFound, match="on_failure"):
            await flows.control(first.run_id, "rerun_from", task="go_home")
    assert again.taken_over == ["flight"]
    assert travel.done == ["flight", "car", "go_home", "car", "go_home"]


async def test_a_pause_holds_compensation_back_until_it_is_resumed(
    settings: FlowSettings, end_of: EndOf, gate: Gate
) -> None:
    trip = flow(
        step("car", fails=1),
        on_failure=[{"name": "hold", "type": "gate", "required_tools": ["gate"]}, step("go_home")],
    )
    travel = Travel()
    async with FlowService(settings, agents=[travel, gate]) as flows:
        run_id = (await flows.execute_flow(workflow_def=trip)).run_id
        await gate.reached.wait()
        await flows.control(run_id, "pause")
        gate.opened.set()
        await until(flows, run_id, "run.paused")
        assert travel.done == ["car"]
        await flows.control(run_id, "resume")
        run = await end_of(flows, run_id)
        assert (await flows.verify()).ok
    assert travel.done == ["car", "go_home"]
    assert gate.passed == ["hold"]
    assert run.state == "failed"


async def test_plans_and_runs_show_their_compensation(settings: FlowSettings, end_of: EndOf) -> None:
    clean = {"name": "clean", "required_tools": ["file_writer"], "parameters": {"path": "note.txt", "content": "x"}}
    trip = flow(step("car", fails=1, on_failure=[clean]), on_failure=[step("go_home")])
    async with FlowService(settings, agents=[Travel()]) as flows:
        explained = await flows.explain(workflow_def=trip)
        run = await end_of(flows, (await flows.execute_flow(workflow_def=trip)).run_id)
        views = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
    assert explained.plan is not None
    assert (explained.plan.tasks, explained.plan.waves) == (1, [["car"]])
    assert explained.plan.on_failure == ["clean", "go_home"]
    assert explained.critical_path == ["car"]
    assert "clean (after a failure): writes the file note.txt" in (explained.side_effects or [])
    assert {view.name: view.on_failure_of for view in views} == {"car": None, "clean": "car", "go_home": ""}
