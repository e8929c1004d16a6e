"""A clock that tests advance, and a service on a database of the test's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.execution import conductor
from contexten.extensions.flow.views import RunView

EndOf = Callable[[FlowService, str], Awaitable[RunView]]
Driven = Callable[..., AbstractAsyncContextManager[FlowService]]


class FakeClock:
    """Time stands still but for `advance`; sleepers wake in the order of their deadlines."""

    def __init__(self) -> None:
        self._start = datetime(2030, 1, 1, tzinfo=UTC)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self.draw = 0.5
        """What `random` answers."""
        self.wall = 0.0
        """Seconds by which the wall clock was set forward."""
        self.tick = 0.0
        """How much time passes each time that somebody looks at the clock."""

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed + self.wall)

    def timestamp(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        self._elapsed += self.tick
        return self._elapsed

    def random(self) -> float:
        return self.draw

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        event = anyio.Event()
        entry = (self._elapsed + seconds, event)
        self._sleepers.append(entry)
        try:
            await event.wait()
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)

    @property
    def deadlines(self) -> list[float]:
        """When sleepers will wake, in seconds from now."""
        return sorted(due - self._elapsed for due, _ in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, waking each sleeper at its time; then let everybody take a few turns."""
        end = self._elapsed + seconds
        while due := [entry for entry in self._sleepers if entry[0] <= end]:
            entry = min(due, key=lambda entry: entry[0])
            self._elapsed = max(self._elapsed, entry[0])
            self._sleepers.remove(entry)
            entry[1].set()
            await anyio.wait_all_tasks_blocked()
        self._elapsed = end
        await anyio.wait_all_tasks_blocked()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Time that stands still. A service that stops does not sleep by it until the last commits are done."""
    monkeypatch.setattr(conductor, "FINISH_POLL_S", 0.0)
    return FakeClock()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowSettings:
    """The defaults on a database of the test's own, with retries that follow at once and no flushes to the disk."""
    for name in list(os.environ):
        if name.startswith("CONTEXTEN_FLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return FlowSettings(database=tmp_path / "flow.sqlite3", durability="process", retry_delay_s=0)


@pytest.fixture
def end_of() -> EndOf:
    """Wait for a run's end; answers the run with its output."""

    async def wait(flows: FlowService, run_id: str) -> RunView:
        with anyio.fail_after(30):
            await flows.wait(run_id)
        return await flows.get_run(run_id, detail="output")

    return wait


class Gate:
    """An agent whose attempts begin, tell so, and end when the test opens the gate."""

    name = "gate"
    agent_type = "gate"
    tools = ("gate",)
    capacity = 10

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()

    async def run(self, task: TaskCall) -> dict[str, Any]:
        self.reached.set()
        await self.opened.wait()
        return task.parameters


@pytest.fixture
def gate() -> Gate:
    """A closed gate."""
    return Gate()


class Turnstile:
    """An agent that tells in which order runs came to it, and lets each through when the test says so."""

    name = "turnstile"
    agent_type = "turnstile"
    tools = ("turn",)
    capacity = 1000

    def __init__(self) -> None:
        self.came: list[str] = []
        """Runs in the order in which their attempts began."""
        self.fails: set[str] = set()
        """Runs whose attempts fail as invalid."""
        self._is_open = False
        self._let_through: dict[str, anyio.Event] = {}
        self._changed = anyio.Event()

    async def run(self, task: TaskCall, context: AttemptContext) -> None:
        self.came.append(context.run_id)
        self._changed.set()
        if not self._is_open:
            await self._let_through.setdefault(context.run_id, anyio.Event()).wait()
        if context.run_id in self.fails:
            raise ValueError(context.run_id)

    def let_through(self, run_id: str) -> None:
        """Let the run's attempt end, whether it is here yet or not."""
        self._let_through.setdefault(run_id, anyio.Event()).set()

    def open(self) -> None:
        """Let all through from now on."""
        self._is_open = True
        for event in self._let_through.values():
            event.set()

    async def has_come(self, number: int) -> list[str]:
        """Wait until so many have come; answers all that have."""
        with anyio.fail_after(30):
            while len(self.came) < number:
                self._changed = anyio.Event()
                await self._changed.wait()
        return self.came


@pytest.fixture
def turnstile() -> Turnstile:
    """A closed turnstile."""
    return Turnstile()


@pytest.fixture
def driven(turnstile: Turnstile) -> Driven:
    """Opens a service with the turnstile as agent; the turnstile opens at the end, also of a test that fails."""

    async def go_on(clock: FakeClock) -> None:
        while True:
            await clock.advance(0.01)
            await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def opened(settings: FlowSettings, *, clock: FakeClock | None = None) -> AsyncIterator[FlowService]:
        async with anyio.create_task_group() as group:
            async with FlowService(settings, agents=[turnstile], clock=clock) as flows:
                try:
                    yield flows
                finally:
                    turnstile.open()
                    if clock is not None:  # a service that stops looks at it until all attempts have ended
                        group.start_soon(go_on, clock)
            group.cancel_scope.cancel()

    return opened
