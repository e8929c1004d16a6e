"""Work in turns goes on whatever befalls one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from contexten.extensions.flow.errors import StoreError
from contexten.extensions.flow.live.bell import Bell
from contexten.extensions.flow.live.turns import RETRY_S, take_turns
from contexten.extensions.flow.live.watching import Change, Watchers

if TYPE_CHECKING:
    from tests.unit.conftest import FakeClock

pytestmark = pytest.mark.anyio


async def test_a_turn_that_failed_is_told_and_taken_again(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Exception | float | None] = [StoreError("the disk is full"), ZeroDivisionError(), 60.0, None, None]
    turns: list[float] = []
    bell = Bell(clock)

    async def turn() -> float | None:
        turns.append(clock.monotonic())
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    heard: list[Change] = []
    watchers = Watchers()
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: take_turns(turn, bell=bell, watchers=watchers, heard=heard.append, failure="it was not done")
        )
        await anyio.wait_all_tasks_blocked()
        await clock.advance(RETRY_S)
        await clock.advance(RETRY_S)
        await clock.advance(60)
        await clock.advance(1000)  # nothing was asked for
        bell.ring()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert turns == [0, RETRY_S, 2 * RETRY_S, 2 * RETRY_S + 60, 2 * RETRY_S + 1060]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "it was not done and will be tried again: the disk is full"),
        ("ERROR", "it was not done and will be tried again"),
    ]


async def test_what_is_broken_is_not_tried_at_each_ring(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    turns: list[float] = []
    bell = Bell(clock)
    is_broken = True

    async def turn() -> None:
        turns.append(clock.monotonic())
        if is_broken:
            raise StoreError("the disk is full")

    watchers = Watchers()
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: take_turns(turn, bell=bell, watchers=watchers, heard=lambda _: None, failure="it was not done")
        )
        for _ in range(2):
            for _ in range(3):
                await anyio.wait_all_tasks_blocked()
                bell.ring()
            await clock.advance(RETRY_S)
        is_broken = False
        bell.ring()
        await clock.advance(RETRY_S)  # what rang is answered by the turn that follows, and by that alone
        await clock.advance(1000)
        bell.ring()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert turns == [0, RETRY_S, 2 * RETRY_S, 3 * RETRY_S, 3 * RETRY_S + 1000]
    assert len(caplog.records) == 3
