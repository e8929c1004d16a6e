"""Alarms: one heap, one sleeper, never early, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from contexten.extensions.flow.execution.timers import Timers

if TYPE_CHECKING:
    from tests.unit.conftest import FakeClock

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(clock: FakeClock) -> AsyncIterator[Timers]:
    timers = Timers(clock)
    async with anyio.create_task_group() as group:
        group.start_soon(timers.run)
        await anyio.wait_all_tasks_blocked()
        yield timers
        group.cancel_scope.cancel()


async def test_alarms_ring_in_the_order_of_their_times_and_never_early(clock: FakeClock) -> None:
    rung: list[tuple[str, float]] = []
    async with running(clock) as timers:
        for name, seconds in (("late", 5.0), ("soon", 1.0), ("middle", 3.0)):
            timers.after(seconds, lambda name=name: rung.append((name, clock.monotonic())))  # type: ignore[misc]  # a lambda's default has no type
        await clock.advance(0.5)
        assert rung == []
        await clock.advance(2.5)
        assert rung == [("soon", 1.0), ("middle", 3.0)]
        await clock.advance(10)
    assert rung[-1] == ("late", 5.0)


async def test_an_alarm_set_while_a_later_one_is_slept_for_rings_at_its_own_time(clock: FakeClock) -> None:
    rung: list[float] = []
    async with running(clock) as timers:
        timers.after(100, lambda: rung.append(clock.monotonic()))
        await anyio.wait_all_tasks_blocked()
        timers.after(1, lambda: rung.append(clock.monotonic()))
        await anyio.wait_all_tasks_blocked()
        await clock.advance(1)
    assert rung == [1.0]


async def test_a_cancelled_alarm_never_rings_and_cancelling_twice_does_no_harm(clock: FakeClock) -> None:
    rung: list[str] = []
    async with running(clock) as timers:
        alarm = timers.after(1, lambda: rung.append("cancelled"))
        timers.after(2, lambda: rung.append("kept"))
        alarm.cancel()
        alarm.cancel()
        await clock.advance(5)
    assert rung == ["kept"]


async def test_an_alarm_may_set_another_and_what_is_due_at_once_rings_at_once(clock: FakeClock) -> None:
    rung: list[float] = []
    async with running(clock) as timers:

        def again() -> None:
            timers.after(0, lambda: rung.append(clock.monotonic()))

        timers.after(1, again)
        await clock.advance(1)
        timers.after(-5, lambda: rung.append(clock.monotonic()))
        await anyio.wait_all_tasks_blocked()
    assert rung == [1.0, 1.0]


async def test_alarms_of_one_time_ring_in_the_order_they_were_set(clock: FakeClock) -> None:
    rung: list[int] = []
    async with running(clock) as timers:
        for number in range(20):
            timers.after(1, lambda number=number: rung.append(number))  # type: ignore[misc]  # a lambda's default has no type
        await clock.advance(1)
    assert rung == list(range(20))


async def test_an_alarm_for_a_time_rings_when_the_wall_clock_was_set_forward(clock: FakeClock) -> None:
    rung: list[float] = []
    async with running(clock) as timers:
        timers.at(clock.timestamp() + 3600, lambda: rung.append(clock.monotonic()))
        await clock.advance(10)
        clock.wall += 3590  # the machine slept: the monotonic clock stood still
        await clock.advance(60)
    assert rung == [60.0]


async def test_an_alarm_for_a_time_is_not_early_where_the_wall_clock_was_set_back(clock: FakeClock) -> None:
    rung: list[float] = []
    async with running(clock) as timers:
        timers.at(clock.timestamp() + 30, lambda: rung.append(clock.monotonic()))
        clock.wall -= 100
        await clock.advance(120)
        assert rung == []
        await clock.advance(10)
    assert rung == [130.0]
