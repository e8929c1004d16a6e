"""Runs wait for a slot; the strategy decides who is next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowPriority, FlowService, FlowSettings, SchedulingStrategy
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


def one_task(tool: str) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": [{"name": "task", "type": "t", "required_tools": [tool]}]}]}


class Order:
    """Remembers in which order runs came."""

    tools = ("order",)

    def __init__(self) -> None:
        self.runs: list[str] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> None:
        self.runs.append(context.run_id)


async def queued(flows: FlowService, gate: Gate, priorities: list[int | str]) -> list[str]:
    """Fill the one slot, then queue runs behind it."""
    await flows.execute_flow(workflow_def=one_task("gate"))
    with anyio.fail_after(30):
        await gate.reached.wait()
    return [
        (await flows.execute_flow(workflow_def=one_task("order"), priority=priority)).run_id for priority in priorities
    ]


@pytest.fixture
def one_slot(settings: FlowSettings) -> FlowSettings:
    return settings.model_copy(update={"max_concurrent_flows": 1})


async def test_first_in_first_out_is_the_default(one_slot: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    order = Order()
    async with FlowService(one_slot, agents=[gate, order]) as flows:
        ids = await queued(flows, gate, ["low", "critical", "normal"])
        gate.opened.set()
        for run_id in ids:
            await end_of(flows, run_id)
    assert order.runs == ids


async def test_by_priority_the_most_urgent_run_is_next(one_slot: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    order = Order()
    async with FlowService(one_slot, agents=[gate, order]) as flows:
        await flows.set_strategy(SchedulingStrategy.PRIORITY)
        low, critical, normal = await queued(flows, gate, [FlowPriority.LOW, "critical", 2])
        gate.opened.set()
        for run_id in (low, critical, normal):
            await end_of(flows, run_id)
    assert order.runs == [critical, normal, low]


async def test_the_strategy_can_be_changed_while_runs_are_queued(
    one_slot: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    order = Order()
    async with FlowService(one_slot, agents=[gate, order]) as flows:
        low, high = await queued(flows, gate, ["low", "high"])
        assert (await flows.scheduler()).next_runs == [low, high]
        change = await flows.set_strategy("priority")
        assert (change.before.strategy, change.after.strategy) == ("fifo", "priority")
        assert (await flows.scheduler()).next_runs == [high, low]
        gate.opened.set()
        for run_id in (low, high):
            await end_of(flows, run_id)
    assert order.runs == [high, low]


async def test_a_queued_run_says_what_it_waits_for(one_slot: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    async with FlowService(one_slot, agents=[gate, Order()]) as flows:
        first, second = await queued(flows, gate, [2, 2])
        why = await flows.explain(run_id=second)
        assert why.state == "scheduled"
        assert "behind 1 run" in why.summary
        assert why.waiting_for is not None
        assert "max_concurrent_flows is 1" in why.waiting_for[0]
        gate.opened.set()
        await end_of(flows, first)
        await end_of(flows, second)


async def test_a_queued_run_can_be_cancelled_and_never_starts(
    one_slot: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    order = Order()
    async with FlowService(one_slot, agents=[gate, order]) as flows:
        first, second = await queued(flows, gate, [2, 2])
        assert (await flows.control(first, "cancel")).state == "cancelled"
        gate.opened.set()
        await end_of(flows, second)
    assert order.runs == [second]


async def test_more_slots_let_queued_runs_start_at_once(one_slot: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    async with FlowService(one_slot, agents=[gate, Order()]) as flows:
        (run_id,) = await queued(flows, gate, [2])
        change = await flows.set_strategy(max_concurrent_flows=2)
        assert change.after.max_concurrent_flows == 2
        assert (await end_of(flows, run_id)).state == "completed"
        gate.opened.set()


async def test_queued_runs_survive_a_restart_in_their_order(one_slot: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    order = Order()
    short = one_slot.model_copy(update={"stop_grace_s": 0.0})
    async with FlowService(short, agents=[gate, order]) as flows:
        await flows.set_strategy("priority")
        low, high = await queued(flows, gate, ["low", "high"])
    gate.opened.set()
    async with FlowService(short, agents=[gate, order]) as flows:
        for run_id in (low, high):
            await end_of(flows, run_id)
        assert (await flows.scheduler()).strategy == "priority"
    assert order.runs == [high, low]
