"""Changes become notifications: the first at once, then at most ten a second, the last one always."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from mcp.server.subscriptions import ResourceUpdated

from contexten.extensions.flow.live.watching import Change
from contexten.extensions.flow.service import FlowService
from contexten_resources import LiveUpdates
from contexten_resources.uris import fill, touched

pytestmark = pytest.mark.anyio


class HandClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.moved = anyio.Event()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def timestamp(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        until = self.time + seconds
        while self.time < until - 1e-9:
            await self.moved.wait()

    def random(self) -> float:
        return 0.5

    async def advance(self, seconds: float) -> None:
        self.time += seconds
        event, self.moved = self.moved, anyio.Event()
        event.set()
        for _ in range(20):  # more steps than a notification takes
            await anyio.lowlevel.checkpoint()


class Source:
    """What LiveUpdates needs of a service."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Change], None]] = []

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def change(self, run_id: str = "run_1", state: str = "running") -> None:
        for listener in self.listeners:
            listener(Change(run_id=run_id, flow_id="f", state=state, types=("task.completed",), cursor="c"))


@asynccontextmanager
async def following() -> AsyncIterator[tuple[HandClock, Source, list[str], LiveUpdates]]:
    clock, source, heard = HandClock(), Source(), list[str]()

    def hear(event: Any) -> None:
        assert isinstance(event, ResourceUpdated)
        heard.append(str(event.uri))

    async with LiveUpdates(clock=clock) as updates:
        await updates.start(cast("FlowService", source))
        leave = updates.bus.subscribe(hear)
        yield clock, source, heard, updates
        leave()
    assert source.listeners == []


RUN = "flow://runs/run_1"


async def test_a_change_touches_its_run_its_flow_and_the_lists() -> None:
    change = Change(run_id="run 1", flow_id="a/b", state="running", types=("run.running",), cursor="c")
    assert touched(change) == [
        "flow://runs/run%201",
        "flow://runs/run%201/events",
        "flow://flows/a%2Fb",
        "flow://flows",
        "flow://scheduler",
        "flow://metrics",
    ]
    assert fill("flow://flows/{flow_id}", flow_id="ü") == "flow://flows/%C3%BC"


async def test_the_first_change_is_told_at_once() -> None:
    async with following() as (_, source, heard, _updates):
        source.change()
        await anyio.wait_all_tasks_blocked()
        assert heard.count(RUN) == 1
        assert len(heard) == 6


async def test_changes_within_a_tenth_of_a_second_are_told_together_at_its_end() -> None:
    async with following() as (clock, source, heard, _updates):
        source.change()
        await anyio.wait_all_tasks_blocked()
        for _ in range(20):
            source.change()
            await clock.advance(0.004)
        assert heard.count(RUN) == 1
        await clock.advance(0.03)
        assert heard.count(RUN) == 2
        await clock.advance(1)
        assert heard.count(RUN) == 2


async def test_at_most_ten_a_second_however_many_changes() -> None:
    async with following() as (clock, source, heard, _updates):
        for _ in range(1000):
            source.change()
            await clock.advance(0.001)
        await clock.advance(0.2)
        assert 9 <= heard.count(RUN) <= 12


async def test_a_change_after_quiet_is_told_at_once_again() -> None:
    async with following() as (clock, source, heard, _updates):
        source.change()
        await anyio.wait_all_tasks_blocked()
        await clock.advance(5)
        source.change()
        await anyio.wait_all_tasks_blocked()
        assert heard.count(RUN) == 2


async def test_each_run_has_its_own_pace() -> None:
    async with following() as (_, source, heard, _updates):
        for number in range(50):
            source.change(run_id=f"run_{number}")
        await anyio.wait_all_tasks_blocked()
        assert len({uri for uri in heard if uri.endswith("/events")}) == 50
        assert heard.count("flow://flows") == 1


async def test_nothing_is_kept_where_nobody_listens() -> None:
    clock, source = HandClock(), Source()
    async with LiveUpdates(clock=clock) as updates:
        await updates.start(cast("FlowService", source))
        for number in range(1000):
            source.change(run_id=f"run_{number}")
        assert not updates._due
        assert not updates._quiet_until


async def test_what_is_kept_is_let_go_when_it_is_quiet() -> None:
    async with following() as (clock, source, _heard, updates):
        for number in range(1000):
            source.change(run_id=f"run_{number}")
        await anyio.wait_all_tasks_blocked()
        await clock.advance(1)
        source.change()
        await anyio.wait_all_tasks_blocked()
        assert len(updates._quiet_until) <= 6
        assert not updates._pending


async def test_a_listener_that_leaves_twice_is_counted_once() -> None:
    async with LiveUpdates() as updates:
        leave = updates.bus.subscribe(lambda event: None)
        other = updates.bus.subscribe(lambda event: None)
        leave()
        leave()
        assert updates.bus.listeners == 1
        other()
