"""Attempts that are cancelled: what they are told, those that refuse to end, and their ids when they are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings, farewells
from contexten.extensions.flow.agents.protocol import AttemptContext, Ending, TaskCall
from contexten.extensions.flow.execution import conductor as conductor_module

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio

ONCE = {"max_attempts": 1}


class Clinging:
    """An agent whose attempts hear why they are cancelled, and go on until they are freed unless they are polite."""

    name = "clinging"
    agent_type = "test"
    tools = ("cling",)
    capacity = 2

    def __init__(self, *, is_polite: bool = False) -> None:
        self.is_polite = is_polite
        self.contexts: list[AttemptContext] = []
        self.endings: list[Ending | None] = []
        self.freed = anyio.Event()
        self._changed = anyio.Event()

    async def run(self, _task: TaskCall, context: AttemptContext) -> str:
        self.contexts.append(context)
        self._changed.set()
        while not self.freed.is_set():
            try:
                await self.freed.wait()
            except asyncio.CancelledError:
                self.endings.append(context.ending)
                if self.is_polite:
                    raise
        return "late"

    async def has_begun(self, number: int) -> None:
        with anyio.fail_after(10):
            while len(self.contexts) < number:
                self._changed = anyio.Event()
                await self._changed.wait()
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def opened(settings: FlowSettings, agent: Clinging, clock: FakeClock) -> AsyncIterator[FlowService]:
    """A service whose attempts end with the block, also where a test fails: time stands still then."""
    async with FlowService(settings, agents=[agent], clock=clock) as flows:
        try:
            yield flows
        finally:
            agent.freed.set()
            await left(flows)


def flow(task: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["cling"], **(task or {})}]}], **fields}


async def left(flows: FlowService) -> None:
    """Until no agent works."""
    with anyio.fail_after(10):
        while flows.registry.running:
            await anyio.lowlevel.checkpoint()


async def test_an_attempt_that_goes_on_after_its_time_and_the_grace_has_failed(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    agent = Clinging()
    async with opened(settings, agent, clock) as flows:
        run = await flows.execute_flow(workflow_def=flow({"timeout_s": 10, "retry": ONCE}))
        await agent.has_begun(1)
        await clock.advance(10)
        assert (await flows.get_run(run.run_id)).state == "running"
        await clock.advance(settings.cancel_grace_s + 0.1)
        ended = await end_of(flows, run.run_id)
        assert ended.state == "failed"
        assert ended.error is not None
        assert ended.error.kind == "timeout"
        assert flows.registry.running == 1  # its place stays taken
    assert set(agent.endings) == {Ending.TIMED_OUT}


async def test_what_a_given_up_attempt_comes_to_does_not_touch_the_next_one(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    agent = Clinging()
    retry = {"max_attempts": 2, "delay_s": 0}
    async with opened(settings, agent, clock) as flows:
        run = await flows.execute_flow(workflow_def=flow({"timeout_s": 10, "retry": retry}))
        await agent.has_begun(1)
        await clock.advance(10)
        await clock.advance(settings.cancel_grace_s + 0.1)
        await clock.advance(settings.retry_delay_s + 0.1)
        await agent.has_begun(2)
        agent.contexts[0].log("info", "too late")
        agent.contexts[1].log("info", "in time")
        agent.freed.set()
        ended = await end_of(flows, run.run_id)
        assert ended.state == "completed"
        events = (await flows.get_run(run.run_id, detail="events")).events or []
    lines = [event.details for event in events if event.type == "task.log"]
    assert lines == [{"level": "info", "message": "in time"}]
    assert [context.attempt for context in agent.contexts] == [1, 2]


async def test_the_service_closes_although_an_attempt_refuses_to_end(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conductor_module, "CUT_OFF_S", 0.05)
    agent = Clinging()
    flows = FlowService(settings.model_copy(update={"stop_grace_s": 0.0}), agents=[agent])
    await flows.__aenter__()
    await flows.execute_flow(workflow_def=flow())
    await agent.has_begun(1)
    with anyio.fail_after(10):
        await flows.__aexit__(None, None, None)
    assert "refuses to end" in caplog.text
    assert set(agent.endings) == {Ending.STOPPING}
    agent.freed.set()
    await left(flows)


async def test_the_service_closes_although_an_agent_does_not(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(farewells, "FAREWELL_S", 0.05)
    freed = anyio.Event()

    class Staying(Clinging):
        async def aclose(self) -> None:
            with anyio.CancelScope(shield=True):
                await freed.wait()

    with anyio.fail_after(10):
        async with FlowService(settings, agents=[Staying()]):
            pass
    assert "the agents did not close" in caplog.text
    freed.set()
    await anyio.wait_all_tasks_blocked()


async def test_an_attempt_is_told_that_its_run_is_cancelled(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Clinging(is_polite=True)
    async with FlowService(settings, agents=[agent]) as flows:
        run = await flows.execute_flow(workflow_def=flow())
        await agent.has_begun(1)
        await flows.control(run.run_id, "cancel")
        await end_of(flows, run.run_id)
    assert agent.endings == [Ending.CANCELLED]


@pytest.mark.parametrize("of_run", [False, True])
async def test_an_attempt_is_told_that_its_time_or_its_runs_is_up(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf, *, of_run: bool
) -> None:
    agent = Clinging(is_polite=True)
    async with opened(settings, agent, clock) as flows:
        run = await flows.execute_flow(
            workflow_def=flow({"retry": ONCE} if of_run else {"retry": ONCE, "timeout_s": 10}),
            timeout_s=10 if of_run else None,
        )
        await agent.has_begun(1)
        await clock.advance(10)
        await end_of(flows, run.run_id)
    assert agent.endings == [Ending.TIMED_OUT]


async def test_an_attempt_that_an_orderly_stop_cut_off_is_repeated_under_its_id(
    settings: FlowSettings, end_of: EndOf
) -> None:
    agent = Clinging(is_polite=True)
    hasty = settings.model_copy(update={"stop_grace_s": 0.0})
    async with FlowService(hasty, agents=[agent]) as flows:
        run = await flows.execute_flow(workflow_def=flow())
        await agent.has_begun(1)
    assert agent.endings == [Ending.STOPPING]
    async with FlowService(hasty, agents=[agent]) as flows:
        await agent.has_begun(2)
        agent.freed.set()
        assert (await end_of(flows, run.run_id)).state == "completed"
    first, second = agent.contexts
    assert (second.attempt_id, second.attempt) == (first.attempt_id, 1)


async def test_an_attempt_of_a_lost_run_is_told_so_and_repeated_under_its_id(
    settings: FlowSettings, end_of: EndOf
) -> None:
    agent = Clinging(is_polite=True)
    async with FlowService(settings, agents=[agent]) as flows:
        run = await flows.execute_flow(workflow_def=flow())
        await agent.has_begun(1)
        conductor = flows._driver.conductor
        assert conductor is not None
        await flows._store.write(lambda tx: tx.execute("DELETE FROM servers"))  # as another does that thinks it dead
        await conductor.leases.look()
        await agent.has_begun(2)
        agent.freed.set()
        assert (await end_of(flows, run.run_id)).state == "completed"
    first, second = agent.contexts
    assert agent.endings == [Ending.LOST]
    assert (second.attempt_id, second.attempt) == (first.attempt_id, 1)
