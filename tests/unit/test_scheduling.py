"""Changing the strategy and the limit: nothing is lost, everything is remembered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings, SchedulingStrategy
from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.errors import InvalidArguments

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}


async def queue(flows: FlowService, *priorities: int) -> list[str]:
    return [(await flows.execute_flow(workflow_def=FLOW, priority=priority)).run_id for priority in priorities]


async def test_the_queue_is_reordered_at_once_and_back_and_loses_no_run(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        ids = await queue(flows, 3, 0, 4, 1)
        assert (await flows.scheduler()).next_runs == ids
        change = await flows.set_strategy("priority")
        assert "4 queued runs are now ordered by priority" in change.effect
        assert (await flows.scheduler()).next_runs == [ids[1], ids[3], ids[0], ids[2]]
        await flows.set_strategy("fifo")
        assert (await flows.scheduler()).next_runs == ids


async def test_strategy_and_limit_are_remembered_over_the_settings(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.set_strategy("priority", max_concurrent_flows=7)
    async with FlowService(settings.model_copy(update={"max_concurrent_flows": 3})) as flows:
        view = await flows.scheduler()
    assert (view.strategy, view.max_concurrent_flows) == ("priority", 7)


async def test_a_strategy_that_was_chosen_is_remembered_even_if_it_was_the_one_in_use(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.set_strategy("fifo")
    async with FlowService(settings.model_copy(update={"strategy": "priority"}), drive=False) as flows:
        assert (await flows.scheduler()).strategy == "fifo"


async def test_choosing_a_strategy_does_not_pin_the_limit_of_the_settings(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.set_strategy("priority")
    async with FlowService(settings.model_copy(update={"max_concurrent_flows": 3}), drive=False) as flows:
        assert (await flows.scheduler()).max_concurrent_flows == 3


async def test_a_queue_is_drained_after_it_was_reordered_and_the_process_ended(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async with FlowService(settings, drive=False) as flows:
        ids = await queue(flows, 3, 0, 4, 1)
        await flows.set_strategy("priority", max_concurrent_flows=1)
    async with FlowService(settings) as flows:
        ended = [await end_of(flows, run_id) for run_id in ids]
    assert [run.state for run in ended] == ["completed"] * 4
    starts = sorted(ended, key=lambda run: run.started_at or "")
    assert [run.priority for run in starts] == [0, 1, 3, 4]


async def test_a_change_is_in_the_journal_with_its_actor(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.set_strategy("priority", actor=Actor(client="anna"))
        event = (await flows.events())[-1]
    assert (event.type, event.actor) == ("scheduler.changed", "anna/python")
    assert event.details is not None
    assert event.details["strategy"] == "priority"


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, 100_001])
async def test_a_limit_out_of_range_is_refused(settings: FlowSettings, limit: Any) -> None:
    async with FlowService(settings, drive=False) as flows:
        with pytest.raises(InvalidArguments) as caught:
            await flows.set_strategy(max_concurrent_flows=limit)
        assert (await flows.scheduler()).max_concurrent_flows == 100
    assert caught.value.issues[0].path == "/max_concurrent_flows"


async def test_what_is_missing_or_unknown_is_refused_and_changes_nothing(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        with pytest.raises(InvalidArguments, match="takes a strategy"):
            await flows.set_strategy()
        with pytest.raises(InvalidArguments, match="There is no strategy") as caught:
            await flows.set_strategy("lifo")
        with pytest.raises(InvalidArguments, match="There is no strategy"):
            await flows.set_strategy("lifo", dry_run=True)
        assert await flows.events() == []
        assert (await flows.scheduler()).strategy == "fifo"
    assert caught.value.issues[0].expected == [str(name) for name in SchedulingStrategy]


async def until(answer: Callable[[], Awaitable[bool]]) -> None:
    """Look until another process's entries were heard."""
    with anyio.fail_after(30):
        while not await answer():
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("is_again", [False, True])
async def test_a_run_submitted_beside_a_change_of_the_strategy_gets_its_key(
    settings: FlowSettings, clock: FakeClock, is_again: bool
) -> None:
    async with FlowService(
        settings, drive=False, clock=clock
    ) as flows:  # which hears of nothing: its time stands still
        first = (await queue(flows, 3))[0]
        if is_again:
            await flows.control(first, "cancel")
        async with FlowService(settings, drive=False, clock=clock) as other:
            await other.set_strategy("priority")
            (late,) = await queue(other, 2)
            if is_again:
                again = (await flows.control(first, "retry")).run_id
                assert (await other.scheduler()).next_runs == [late, again]
            else:
                (urgent,) = await queue(flows, 0)
                assert (await other.scheduler()).next_runs == [urgent, late, first]
        assert (await flows.scheduler()).strategy == "priority"


async def test_a_changed_aging_interval_orders_what_is_queued_at_the_next_start(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    settings = settings.model_copy(update={"strategy": "priority", "max_concurrent_flows": 1})
    async with FlowService(settings, drive=False, clock=clock) as flows:
        await flows.set_strategy("priority")
        (old,) = await queue(flows, 3)
        clock.wall += 100
        (new,) = await queue(flows, 0)
        assert (await flows.scheduler()).next_runs == [new, old]
    async with FlowService(settings.model_copy(update={"aging_interval_s": 1.0})) as flows:
        ends = [await end_of(flows, run_id) for run_id in (old, new)]
    assert (ends[0].started_at or "") < (ends[1].started_at or "")


async def test_a_second_server_goes_by_what_is_in_force(settings: FlowSettings) -> None:
    async def state(flows: FlowService) -> tuple[str, int]:
        view = await flows.scheduler()
        return view.strategy, view.max_concurrent_flows

    other = settings.model_copy(update={"strategy": "priority", "max_concurrent_flows": 7, "aging_interval_s": 9.0})
    async with (
        FlowService(settings) as first,
        FlowService(other) as second,
        FlowService(other, drive=False) as asking,
    ):
        assert [await state(flows) for flows in (first, second, asking)] == [("fifo", 100)] * 3
        assert not [event for event in await first.events() if event.type == "scheduler.changed"]
        await second.set_strategy("deadline_aware", max_concurrent_flows=5)

        async def has_heard() -> bool:
            return await state(first) == ("deadline_aware", 5)

        await until(has_heard)
        await second.set_strategy("fifo")
    async with FlowService(other) as alone:  # both were chosen, and go before the settings
        assert await state(alone) == ("fifo", 5)


async def test_settings_hold_again_where_no_server_lives_and_others_hear_of_it(settings: FlowSettings) -> None:
    async with FlowService(settings):
        pass
    async with FlowService(settings, drive=False) as asking:
        assert (await asking.scheduler()).max_concurrent_flows == 100
        async with FlowService(settings.model_copy(update={"max_concurrent_flows": 7})):

            async def has_heard() -> bool:
                return (await asking.scheduler()).max_concurrent_flows == 7

            await until(has_heard)
            changes = [event.details for event in await asking.events() if event.type == "scheduler.changed"]
    assert changes == [{"strategy": "fifo", "max_concurrent_flows": 7}]


async def test_limits_of_a_server_s_settings_reach_those_that_run(settings: FlowSettings) -> None:
    needs = {"stages": [{"name": "s", "tasks": [{"name": "t", "resources": {"gpu": 2}}]}]}
    async with FlowService(settings.model_copy(update={"pools": {"gpu": 1.0}})) as first:
        with pytest.raises(InvalidArguments, match="it has 1"):
            await first.execute_flow(workflow_def=needs)
        async with FlowService(settings.model_copy(update={"pools": {"gpu": 2.0}})):

            async def has_heard() -> bool:
                try:
                    await first.execute_flow(workflow_def=needs)
                except InvalidArguments:
                    return False
                return True

            await until(has_heard)
        async with FlowService(settings.model_copy(update={"pools": {"gpu": 2.0}})):
            pass
        changes = [event.details for event in await first.events() if event.type == "scheduler.changed"]
    assert changes == [{"limits": {"pool": {"gpu": size}}} for size in (1.0, 2.0)]
