"""Forecasts while runs move: what is read is not of one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.store.sql import SQL

pytestmark = pytest.mark.anyio


class Gate:
    """An agent whose attempts end when the test says so, one after the other."""

    name = "gate"
    agent_type = "test"
    tools = ("gate",)
    capacity = 10

    def __init__(self) -> None:
        self.begun = 0
        self.opened = anyio.Semaphore(0)

    async def run(self, task: TaskCall, context: AttemptContext) -> None:
        self.begun += 1
        await self.opened.acquire()


class Moving:
    """A service with one slot: `first` runs, `second` and `third` are queued. Once `after` was read, the first run ends
    and the second starts."""

    def __init__(self, flows: FlowService, gate: Gate, run_ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.flows = flows
        self.run_ids = run_ids
        self.after = ""
        self._gate = gate
        self._rows = flows._store.rows
        monkeypatch.setattr(flows._store, "rows", self._read)  # a read that others overtake

    async def _read(self, sql: str, *parameters: Any) -> Any:
        found = await self._rows(sql, *parameters)
        if self.after and sql == SQL[self.after]:
            self.after = ""
            self._gate.opened.release()
            with anyio.fail_after(30):
                await self.flows.wait(self.run_ids[0])
                while self._gate.begun < 2:
                    await anyio.lowlevel.checkpoint()
        return found


@pytest.fixture
async def moving(settings: FlowSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Moving]:
    gate = Gate()
    task = {"name": "job", "type": "t", "required_tools": ["gate"]}
    definition = {"id": "gated", "stages": [{"name": "only", "tasks": [task]}]}
    settings = settings.model_copy(update={"max_concurrent_flows": 1, "stop_grace_s": 0.0})
    async with FlowService(settings, agents=[gate]) as flows:
        await flows.create_flow(name="gated", workflow_def=definition)
        run_ids = [(await flows.execute_flow(flow_id="gated")).run_id for _ in range(3)]
        with anyio.fail_after(30):
            while not gate.begun:
                await anyio.lowlevel.checkpoint()
        yield Moving(flows, gate, run_ids, monkeypatch)


@pytest.mark.parametrize("after", ["queue_window", "running_for_forecast"])
async def test_a_run_that_moves_meanwhile_counts_once_in_a_comparison(moving: Moving, after: str) -> None:
    moving.after = after
    change = await moving.flows.set_strategy("priority", dry_run=True)
    assert not moving.after
    assert change.forecast is not None
    assert change.forecast.runs == 3


async def test_a_queued_run_is_explained_while_another_starts(moving: Moving) -> None:
    moving.after = "queue_window"
    start = await moving.flows._forecast.expected_start(moving.run_ids[2])
    assert not moving.after
    assert start is not None


async def test_a_run_that_starts_meanwhile_has_no_expected_start(moving: Moving) -> None:
    moving.after = "queue_window"
    assert await moving.flows._forecast.expected_start(moving.run_ids[1]) is None
    assert not moving.after
