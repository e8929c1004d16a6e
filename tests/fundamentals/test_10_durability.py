"""Nothing acknowledged is lost: waits, attempts and queued runs go on after the process has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


async def reached(gate: Gate) -> None:
    with anyio.fail_after(30):
        await gate.reached.wait()


HOLD = {"name": "hold", "type": "t", "required_tools": ["gate"]}


async def test_a_wait_lasts_its_seconds_and_then_the_run_goes_on(settings: FlowSettings, end_of: EndOf) -> None:
    wait = {"name": "pause", "type": "wait", "parameters": {"seconds": 0.1}}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(wait, {"name": "after"}))).run_id)
        types = [event.type for event in await flows.events(run.run_id)]
    assert run.state == "completed"
    assert types.index("run.waiting") < types.index("task.completed")


async def test_a_waiting_run_holds_no_slot(settings: FlowSettings, end_of: EndOf) -> None:
    one_slot = settings.model_copy(update={"max_concurrent_flows": 1})
    async with FlowService(one_slot) as flows:
        wait = {"name": "pause", "type": "wait", "parameters": {"seconds": 3600}}
        await flows.execute_flow(workflow_def=flow(wait))
        run = await flows.execute_flow(workflow_def=flow({"name": "quick"}))
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_a_wait_until_a_time_that_has_passed_is_over_at_once(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        for until in (datetime(2020, 1, 1, tzinfo=UTC).isoformat(), "0001-01-01T00:00:00+14:00"):
            wait = {"name": "pause", "type": "wait", "parameters": {"until": "{{ inputs.until }}"}}
            run = await flows.execute_flow(workflow_def=flow(wait), inputs={"until": until})
            assert (await end_of(flows, run.run_id)).state == "completed"


async def test_a_wait_until_a_time_that_no_one_will_see_fails(settings: FlowSettings, end_of: EndOf) -> None:
    wait = {"name": "pause", "type": "wait", "parameters": {"until": "{{ inputs.until }}"}}
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait), inputs={"until": "9999-12-31T23:59:59-12:00"})
        assert (await end_of(flows, run.run_id)).state == "failed"


async def test_a_restart_goes_on_with_what_was_not_done_and_only_that(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    ran: list[str] = []

    async def once(task: TaskCall) -> None:
        ran.append(task.name)

    short = settings.model_copy(update={"stop_grace_s": 0.0})
    done = {"name": "done", "type": "t", "required_tools": ["once"]}
    async with FlowService(short, agents=[once, gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(done, HOLD))
        await reached(gate)
    gate.opened.set()
    async with FlowService(short, agents=[once, gate]) as flows:
        ended = await end_of(flows, run.run_id)
        types = [event.type for event in await flows.events(run.run_id)]
        tasks = {task.name: task.attempts for task in (await flows.get_run(run.run_id, detail="tasks")).tasks or []}
        assert (await flows.verify()).problems == []
    assert ended.state == "completed"
    assert ran == ["done"]
    assert "run.released" in types
    assert "run.lease_taken" in types
    assert tasks == {"done": 1, "hold": 1}  # an orderly stop costs no attempt


async def test_a_stop_lets_attempts_end_within_the_grace(settings: FlowSettings, gate: Gate) -> None:
    long = settings.model_copy(update={"stop_grace_s": 60.0})
    async with FlowService(long, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(HOLD, {"name": "after"}))
        await reached(gate)
        gate.opened.set()
    async with FlowService(settings, agents=[gate], drive=False) as reader:
        tasks = (await reader.get_run(run.run_id, detail="tasks")).tasks or []
    assert tasks[0].state == "completed"


async def test_a_repeated_attempt_has_the_same_id_for_its_effects(settings: FlowSettings, end_of: EndOf) -> None:
    ids: list[str] = []
    begun, go_on = anyio.Event(), anyio.Event()

    async def effect(task: TaskCall, context: AttemptContext) -> None:
        ids.append(context.attempt_id)
        begun.set()
        await go_on.wait()

    short = settings.model_copy(update={"stop_grace_s": 0.0})
    task = {"name": "pay", "type": "t", "required_tools": ["effect"]}
    async with FlowService(short, agents=[effect]) as flows:
        run = await flows.execute_flow(workflow_def=flow(task))
        with anyio.fail_after(30):
            await begun.wait()
    go_on.set()
    async with FlowService(short, agents=[effect]) as flows:
        await end_of(flows, run.run_id)
    assert ids == [f"{run.run_id}:pay:1"] * 2


async def test_a_restart_in_the_middle_of_a_for_each_and_a_sub_flow_goes_on(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    short = settings.model_copy(update={"stop_grace_s": 0.0})
    child = {"id": "child", **flow({"name": "each", "type": "t", "required_tools": ["gate"], "for_each": [1, 2, 3]})}
    call = {"name": "call", "type": "flow", "parameters": {"flow_id": "child"}}
    async with FlowService(short, agents=[gate]) as flows:
        await flows.create_flow(workflow_def=child)
        run = await flows.execute_flow(workflow_def=flow(call))
        await reached(gate)
    gate.opened.set()
    async with FlowService(short, agents=[gate]) as flows:
        ended = await end_of(flows, run.run_id)
        assert (await flows.verify()).problems == []
    assert ended.output == {"call": {"each": [{}, {}, {}]}}
    assert len(gate.passed) == 3


async def test_a_wait_goes_on_over_a_restart(settings: FlowSettings, end_of: EndOf) -> None:
    wait = {"name": "pause", "type": "wait", "parameters": {"seconds": 2}}
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait, {"name": "after"}))
        with anyio.fail_after(30):
            while (run := await flows.get_run(run.run_id)).state != "waiting":
                await flows.wait(run.run_id, until="change", since=run.cursor)
    async with FlowService(settings) as flows:
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_a_run_goes_on_in_another_server_when_its_own_stops(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    gate.opened.set()
    pause = {"name": "pause", "type": "wait", "parameters": {"seconds": 0.1}}
    async with FlowService(settings, agents=[gate]) as second:
        async with FlowService(settings, agents=[gate]) as first:
            run = await first.execute_flow(workflow_def=flow(pause, HOLD))
        assert (await end_of(second, run.run_id)).state == "completed"


async def test_without_a_driver_a_status_says_that_no_server_lives(settings: FlowSettings) -> None:
    wait = {"name": "pause", "type": "wait", "parameters": {"seconds": 3600}}
    async with FlowService(settings) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait))
    async with FlowService(settings, drive=False) as reader:
        status = await reader.get_run(run.run_id)
    assert "goes on when one starts" in (status.note or "")


async def test_a_request_without_a_driver_says_that_it_waits_for_a_server_and_is_obeyed_then(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    settings = settings.model_copy(update={"stop_grace_s": 0.0})
    async with FlowService(settings, agents=[gate]) as flows:
        run = await flows.execute_flow(workflow_def=flow(HOLD))
        with anyio.fail_after(30):
            await gate.reached.wait()
    async with FlowService(settings, drive=False) as asker:
        told = [(await asker.control(run.run_id, action)).note for action in ("pause", "cancel")]
        assert (await asker.get_run(run.run_id)).note == told[-1]
    assert told == [
        "no server runs on this database; the run is paused when one starts",
        "no server runs on this database; the run is cancelled when one starts",
    ]
    async with FlowService(settings, agents=[gate]) as flows:
        assert (await end_of(flows, run.run_id)).state == "cancelled"
