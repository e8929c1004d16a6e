"""Time, with a clock that the test advances: waits, retries, limits and pauses last as long as they say."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.execution.timers import Timers
from contexten.extensions.flow.store import Transaction

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock, Gate

pytestmark = pytest.mark.anyio

HOLD = {"name": "hold", "type": "t", "required_tools": ["gate"]}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


def wait(seconds: float, name: str = "rest") -> dict[str, Any]:
    return {"name": name, "type": "wait", "parameters": {"seconds": seconds}}


async def until(flows: FlowService, run_id: str, state: str) -> None:
    with anyio.fail_after(30):
        while (run := await flows.get_run(run_id)).state != state:
            await flows.wait(run_id, until="change", since=run.cursor)


async def until_task(flows: FlowService, run_id: str, state: str, *, tries: int = 1) -> None:
    """Until the journal says that a task entered the state that often."""
    with anyio.fail_after(30):
        while True:
            run = await flows.get_run(run_id, detail="events")
            entered = [event for event in run.events or [] if event.type == f"task.{state}"]
            if len(entered) >= tries:
                return
            await flows.wait(run_id, until="change", since=run.cursor)


async def test_a_wait_of_a_day_ends_after_a_day_and_no_second_sooner(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait(86_400), {"name": "after"}))
        await until(flows, run.run_id, "waiting")
        await clock.advance(86_399)
        assert (await flows.get_run(run.run_id)).state == "waiting"
        await clock.advance(1)
        ended = await end_of(flows, run.run_id)
    assert ended.state == "completed"
    assert ended.duration_s == pytest.approx(86_400, abs=1)


async def test_a_wait_that_ended_while_no_process_lived_is_over_at_the_next_start(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(wait(3600)))
        await until(flows, run.run_id, "waiting")
    await clock.advance(7200)
    async with FlowService(settings, clock=clock) as flows:
        await anyio.wait_all_tasks_blocked()
        await clock.advance(0.01)
        assert (await end_of(flows, run.run_id)).state == "completed"


async def test_retries_come_after_their_delays(settings: FlowSettings, clock: FakeClock, end_of: EndOf) -> None:
    times: list[float] = []

    async def down(task: TaskCall, context: AttemptContext) -> None:
        times.append(clock.monotonic())
        raise LookupError  # a kind that no recovery strategy is for

    retry = {"max_attempts": 3, "delay_s": 2, "backoff": 2, "jitter": 0}
    task = {"name": "call", "type": "t", "required_tools": ["down"], "retry": retry}
    async with FlowService(settings, agents=[down], clock=clock) as flows:
        run = await flows.execute_flow(workflow_def=flow(task))
        for tried, delay_s in ((1, 2), (2, 4)):
            await until_task(flows, run.run_id, "retrying", tries=tried)
            await clock.advance(delay_s - 0.01)
            assert len(times) == tried
            await clock.advance(0.01)
        ended = await end_of(flows, run.run_id)
    assert ended.state == "failed"
    assert times == pytest.approx([0, 2, 6], abs=0.001)


async def test_the_time_limit_of_a_run_counts_waiting_but_not_pauses(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        paused = await flows.execute_flow(workflow_def=flow(wait(1000)), timeout_s=500)
        plain = await flows.execute_flow(workflow_def=flow(wait(1000), context={"timeout": 500}))
        await until(flows, paused.run_id, "waiting")
        await until(flows, plain.run_id, "waiting")
        await clock.advance(100)
        await flows.control(paused.run_id, "pause")
        await clock.advance(300)
        await flows.control(paused.run_id, "resume")
        await until(flows, paused.run_id, "waiting")
        await clock.advance(101)
        assert (await end_of(flows, plain.run_id)).state == "failed"
        assert (await flows.get_run(paused.run_id)).state == "waiting"
        await clock.advance(298)
        assert (await flows.get_run(paused.run_id)).state == "waiting"
        await clock.advance(2)
        ended = await end_of(flows, paused.run_id)
    assert ended.error is not None
    assert (ended.state, ended.error.kind) == ("failed", "timeout")


async def test_a_limit_of_a_sub_flow_ends_only_the_sub_flow(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await flows.create_flow(flow_id="child", workflow_def=flow(wait(1000), context={"timeout": 10}))
        call = {"name": "call", "type": "flow", "parameters": {"flow_id": "child"}}
        run = await flows.execute_flow(
            workflow_def={
                "stages": [{"name": "s", "continue_on_task_failure": True, "tasks": [call, {"name": "after"}]}]
            }
        )
        await until(flows, run.run_id, "waiting")
        await clock.advance(11)
        ended = await end_of(flows, run.run_id)
        assert (await flows.verify()).problems == []
    assert (ended.state, ended.failed_tasks, ended.output) == ("completed", ["call"], {"call": None, "after": {}})


async def test_a_sub_flow_that_is_cancelled_while_it_waits_is_noticed_by_its_parent(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await flows.create_flow(flow_id="child", workflow_def=flow(wait(86_400)))
        call = {"name": "call", "type": "flow", "parameters": {"flow_id": "child"}}
        run = await flows.execute_flow(workflow_def=flow(call))
        await until(flows, run.run_id, "waiting")
        task = ((await flows.get_run(run.run_id, detail="tasks")).tasks or [])[0]
        assert task.child_run_id is not None
        await flows.control(task.child_run_id, "cancel")
        await anyio.wait_all_tasks_blocked()
        await clock.advance(1)
        ended = await end_of(flows, run.run_id)
    assert ended.state == "failed"


def graces_of(timers: Timers) -> list[float]:
    """When attempts that were told to end will have had their time; others' alarms are not of interest."""
    return [due for due, _, alarm in timers._heap if "_begin_end" in getattr(alarm.callback, "__qualname__", "")]


async def test_a_grace_that_passes_ends_a_cancelled_run_and_the_sub_flow_that_heard_of_it_later(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    reached, speak, let_go = anyio.Event(), anyio.Event(), anyio.Event()

    async def clings(task: TaskCall, context: AttemptContext) -> None:
        reached.set()
        await speak.wait()
        context.log("info", "not yet")
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    leaf = {"name": "a", "type": "t", "required_tools": ["clings"]}
    call = {"name": "call", "type": "flow", "parameters": {"flow_id": "child"}}
    held, hold_up = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        held.set()
        hold_up.wait(30)

    clock.tick = 0.001
    async with FlowService(settings, agents=[clings], clock=clock) as flows, AsyncExitStack() as farewell:
        farewell.callback(let_go.set)
        farewell.callback(speak.set)
        farewell.callback(hold_up.set)
        await flows.create_flow(flow_id="child", workflow_def=flow(leaf))
        run = await flows.execute_flow(workflow_def=flow(call))
        writer, conductor = flows._store._writer, flows._driver.conductor
        assert writer is not None
        assert conductor is not None
        with anyio.fail_after(30):
            await reached.wait()
            async with anyio.create_task_group() as group:  # the request and the sub-flow's entry share a commit
                group.start_soon(flows._store.write, hold)
                while not held.is_set():  # or the writer would take the request into that commit
                    await anyio.lowlevel.checkpoint()
                group.start_soon(flows.control, run.run_id, "cancel")
                while writer._queue.qsize() < 1:
                    await anyio.lowlevel.checkpoint()
                speak.set()
                while writer._queue.qsize() < 2:
                    await anyio.lowlevel.checkpoint()
                hold_up.set()
            while len(graces := sorted(graces_of(conductor.timers))) < 2:
                await anyio.lowlevel.checkpoint()
        clock.tick = 0.0
        assert graces[0] < graces[1]
        await clock.advance(graces[0] - clock.monotonic())  # the run's grace is over, that of its sub-flow is not
        ended = await end_of(flows, run.run_id)
        await clock.advance(60)
        await anyio.wait_all_tasks_blocked()
        states = {view.flow_id: view.state for view in (await flows.list_runs()).runs}
    assert ended.state == "cancelled"
    assert set(states.values()) == {"cancelled"}


async def test_a_run_that_is_starved_of_agents_can_be_paused_with_its_sub_flow(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    one = gate
    one.capacity = 1
    async with FlowService(settings, agents=[one]) as flows:
        await flows.create_flow(flow_id="child", workflow_def=flow(HOLD))
        first = await flows.execute_flow(workflow_def=flow(HOLD))
        with anyio.fail_after(30):
            await gate.reached.wait()
        call = {"name": "call", "type": "flow", "parameters": {"flow_id": "child"}}
        run = await flows.execute_flow(workflow_def=flow(call))
        with anyio.fail_after(30):
            while len((await flows.list_runs(status="running")).runs) < 3:
                run = await flows.wait(run.run_id, until="change", since=run.cursor)
        await flows.control(run.run_id, "pause")
        await until(flows, run.run_id, "paused")
        await flows.control(run.run_id, "resume")
        gate.opened.set()
        assert [(await end_of(flows, run_id)).state for run_id in (first.run_id, run.run_id)] == ["completed"] * 2
