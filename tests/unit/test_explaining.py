"""Every state explains itself: why the run is there, and the call to make now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import TaskCall
from contexten.extensions.flow.errors import IllegalMove, InvalidArguments
from contexten.extensions.flow.execution import parking
from contexten.extensions.flow.views import Explanation

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

WAIT = {"name": "rest", "type": "wait", "parameters": {"seconds": 3600}}
HOLD = {"name": "hold", "type": "t", "required_tools": ["gate"]}
BAD = {"name": "parse", "required_tools": ["json_parser"], "parameters": {"text": "{"}}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks), **fields}]}


async def until(flows: FlowService, run_id: str, state: str) -> Explanation:
    with anyio.fail_after(30):
        while (run := await flows.get_run(run_id)).state != state:
            await flows.wait(run_id, until="change", since=run.cursor)
    return await flows.explain(run_id=run_id)


async def test_a_running_run_names_what_is_under_way(settings: FlowSettings, gate: Gate) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(HOLD, {"name": "after"}))
        with anyio.fail_after(30):
            await gate.reached.wait()
        why = await flows.explain(run_id=run.run_id)
        gate.opened.set()
    assert why.summary == "Running: 0 of 2 tasks done; under way: hold."
    assert "wait_for_flow" in (why.next or [""])[0]


async def test_a_running_run_says_when_a_failed_attempt_is_tried_again(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PARK_AFTER_S", 1000.0)

    async def down(task: TaskCall) -> None:
        raise ConnectionError

    task = {"name": "call", "type": "t", "required_tools": ["down"], "retry": {"delay_s": 60, "jitter": 0}}
    async with FlowService(settings, agents=[down]) as flows:
        run = await flows.execute_flow(workflow_def=flow(task))
        with anyio.fail_after(30):
            while "task.retrying" not in [event.type for event in await flows.events(run.run_id)]:
                run = await flows.wait(run.run_id, until="change", since=run.cursor)
        (call,) = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
        why = await flows.explain(run_id=run.run_id)
    assert why.waiting_for == [
        f"call: attempt 1 failed (network: ConnectionError); the next attempt at {call.next_attempt_at}"
    ]


async def test_a_waiting_run_names_its_tasks_and_times(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow(WAIT))
        why = await until(flows, run.run_id, "waiting")
    assert why.waiting_for is not None
    assert why.waiting_for[0].startswith("rest until 20")


async def test_a_run_that_waits_in_a_sub_flow_says_for_what(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="nap", workflow_def=flow(WAIT))
        call = {"name": "call", "type": "flow", "parameters": {"flow_id": "nap"}}
        run = await flows.execute_flow(workflow_def=flow(call))
        why = await until(flows, run.run_id, "waiting")
        child = (await flows.list_runs(flow_id="nap")).runs[0].run_id
    assert why.waiting_for == [f"call: the run {child} of its sub-flow"]
    assert why.summary == f"Waiting: {why.waiting_for[0]}."


async def test_a_paused_sub_flow_is_resumed_with_the_run_at_the_top(settings: FlowSettings) -> None:
    def calling(flow_id: str) -> dict[str, Any]:
        return flow({"name": "call", "type": "flow", "parameters": {"flow_id": flow_id}})

    async with FlowService(settings) as flows:
        await flows.create_flow(flow_id="nap", workflow_def=flow(WAIT))
        await flows.create_flow(flow_id="middle", workflow_def=calling("nap"))
        run = await flows.execute_flow(workflow_def=calling("middle"))
        await until(flows, run.run_id, "waiting")
        await flows.control(run.run_id, "pause")
        child = (await flows.list_runs(flow_id="nap")).runs[0].run_id
        why = await until(flows, child, "paused")
        view = await flows.get_run(child)
        with pytest.raises(IllegalMove, match=f"belongs to {run.run_id} ") as refused:
            await flows.control(child, "resume")
    resume = f"control_flow(run_id={run.run_id!r}, action='resume')"
    assert why.next == [resume]
    assert view.root_run_id == run.run_id
    assert resume in (refused.value.next or "")


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry"])
async def test_what_an_ended_run_refuses_names_calls_that_can_be_made(
    settings: FlowSettings, end_of: EndOf, action: Any
) -> None:
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow({"name": "one"}))
        await end_of(flows, run.run_id)
        with pytest.raises(IllegalMove) as refused:
            await flows.control(run.run_id, action)
    assert "action='retry'" not in (refused.value.next or "")
    assert "action='rerun_from', task=...) or execute_flow" in (refused.value.next or "").replace(", or", " or")


async def test_a_paused_run_says_why_and_how_to_go_on(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        run = await flows.execute_flow(workflow_def=flow(WAIT))
        await flows.control(run.run_id, "pause", reason="an audit")
        why = await flows.explain(run_id=run.run_id)
    assert why.summary == "Paused: an audit."
    assert "resume" in (why.next or [""])[0]


async def test_a_cancelled_run_says_why(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        run = await flows.execute_flow(workflow_def=flow(WAIT))
        await flows.control(run.run_id, "cancel", reason="a mistake")
        why = await flows.explain(run_id=run.run_id)
    assert why.summary == "Cancelled: a mistake."


async def test_a_completed_run_names_the_failures_that_were_tolerated(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(
            flows, (await flows.execute_flow(workflow_def=flow(BAD, continue_on_task_failure=True))).run_id
        )
        why = await flows.explain(run_id=run.run_id)
    assert why.state == "completed"
    assert why.summary == f"Completed in {run.duration_s} s. Tolerated failures: parse."


async def test_a_completed_run_tells_how_many_items_failed(settings: FlowSettings, end_of: EndOf) -> None:
    items = {**BAD, "for_each": ["1", "{", "3"], "parameters": {"text": "{{ item }}"}, "continue_on_item_failure": True}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(items))).run_id)
        why = await flows.explain(run_id=run.run_id)
    assert (run.state, run.output, run.failed_tasks) == ("completed", {"parse": [1, None, 3]}, ["parse"])
    assert why.summary == f"Completed in {run.duration_s} s. Tolerated failures: parse (1 of 3 items failed)."


async def test_a_failed_run_tells_its_root_cause_and_the_repair_that_fits_the_kind(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async def down(task: TaskCall) -> None:
        raise ConnectionError

    call = {"name": "call", "type": "t", "required_tools": ["down"], "retry": {"max_attempts": 1}}
    async with FlowService(settings, agents=[down]) as flows:
        invalid = await end_of(flows, (await flows.execute_flow(workflow_def=flow(BAD, {"name": "after"}))).run_id)
        network = await end_of(flows, (await flows.execute_flow(workflow_def=flow(call))).run_id)
        mend = await flows.explain(run_id=invalid.run_id)
        again = await flows.explain(run_id=network.run_id)
    assert mend.failure is not None
    assert mend.failure["root_task"] == "parse"
    assert mend.failure["skipped"] == ["after"]
    assert "update_flow" in "".join(mend.next or [])
    assert "action='retry'" in (again.next or [""])[0]


async def test_a_run_that_failed_by_its_time_limit_blames_no_task(
    settings: FlowSettings, end_of: EndOf, gate: Gate
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(HOLD), timeout_s=0.05)).run_id)
        why = await flows.explain(run_id=run.run_id)
    assert why.summary.startswith("Failed: timeout: The run took longer")


async def test_a_flow_and_a_definition_say_what_they_will_do(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(flow_id="saved", workflow_def=flow({"name": "a"}, {"name": "b"}))
        saved = await flows.explain(flow_id="saved")
        given = await flows.explain(workflow_def=flow({"name": "a"}))
        with pytest.raises(InvalidArguments):
            await flows.explain()
    assert (saved.subject, saved.state, saved.critical_path) == ("flow", "idle", ["a", "b"])
    assert saved.next == ["execute_flow(flow_id='saved')"]
    assert given.subject == "definition"
    assert "touches nothing outside" in given.summary
