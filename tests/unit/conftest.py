"""A clock that tests advance, and a service on a database of the test's own."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import TaskCall
from contexten.extensions.flow.views import RunView

EndOf = Callable[[FlowService, str], Awaitable[RunView]]


class FakeClock:
    """Time stands still but for `advance`; sleepers wake in the order of their deadlines."""

    def __init__(self) -> None:
        self._start = datetime(2030, 1, 1, tzinfo=UTC)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self.draw = 0.5
        """What `random` answers."""
        self.tick = 0.0
        """How much time passes each time that somebody looks at the clock."""

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

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
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowSettings:
    """The defaults on a database of the test's own, with retries that follow at once."""
    for name in list(os.environ):
        if name.startswith("CONTEXTEN_FLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return FlowSettings(database=tmp_path / "flow.sqlite3", retry_delay_s=0)


@pytest.fixture
def end_of() -> EndOf:
    """Wait for a run's end; answers the run with its output."""

    async def wait(flows: FlowService, run_id: str) -> RunView:
        with anyio.fail_after(10):
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
