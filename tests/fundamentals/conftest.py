"""What the tour needs besides the library: a database of the test's own, an agent that the test holds back."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.views import RunView

EndOf = Callable[[FlowService, str], Awaitable[RunView]]


@pytest.fixture(autouse=True)
def _own_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the machine do not reach the tour, and its default database is the test's own."""
    for name in list(os.environ):
        if name.startswith("CONTEXTEN_FLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTEN_FLOW_DATABASE", str(tmp_path / "flow.sqlite3"))


@pytest.fixture
def settings(_own_desk: None) -> FlowSettings:
    """The defaults, but retries follow at once."""
    return FlowSettings(retry_delay_s=0)


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
        self.passed: list[str] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> dict[str, Any]:
        self.reached.set()
        await self.opened.wait()
        self.passed.append(task.name)
        return task.parameters


@pytest.fixture
def gate() -> Gate:
    """A closed gate."""
    return Gate()
