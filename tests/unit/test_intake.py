"""What the intake hears of: runs that are queued, with whatever they depend on."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.states import RunState
from contexten.extensions.flow.store import dependencies
from contexten.extensions.flow.store.advances import Advance
from contexten.extensions.flow.store.queue import claim
from contexten.extensions.flow.store.writer import Pending

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, EndOf, Gate, Turnstile

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["gate"]}]}]}


@pytest.mark.parametrize("name", ["deadline", "dependencies"])
async def test_a_run_may_depend_on_a_flow_of_any_name(
    settings: FlowSettings, gate: Gate, end_of: EndOf, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        first = await flows.execute_flow(workflow_def=FLOW, flow_id=name)
        second = await flows.execute_flow(workflow_def=FLOW, dependencies=[name])
        gate.opened.set()
        for run in (first, second):
            assert (await end_of(flows, run.run_id)).state == "completed"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_run_that_ends_in_the_commit_of_a_claim_frees_what_that_claim_found_blocked(
    settings: FlowSettings, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    async with FlowService(settings.model_copy(update={"flow_limits": {"x": 1}}), agents=[gate]) as flows:
        store = flows._store
        writer, submit, loop = store._writer, store.submit, asyncio.get_running_loop()
        assert writer is not None

        def in_one_group(change: Any, settle: Any) -> None:
            if getattr(change, "func", None) is claim and not gate.opened.is_set():
                writer.submit([Pending(lambda _tx: release.wait(10), lambda _result, _error: None)])
                gate.opened.set()
            submit(change, settle)
            if isinstance(change, Advance) and change.move.to is RunState.COMPLETED:
                loop.call_soon(release.set)  # after what was submitted is handed over

        await flows.create_flow(workflow_def=FLOW, flow_id="x")
        first = await flows.execute_flow(flow_id="x")
        await gate.reached.wait()
        monkeypatch.setattr(store, "submit", in_one_group)
        second = await flows.execute_flow(flow_id="x")
        with anyio.fail_after(5):
            assert (await flows.wait(first.run_id)).state == "completed"
            assert (await flows.wait(second.run_id)).state == "completed"


async def test_all_that_depend_on_a_failed_run_fail_although_no_slot_is_free(
    settings: FlowSettings, turnstile: Turnstile, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "SETTLE_BATCH", 1)
    flow = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["turn"]}]}]}
    async with driven(settings.model_copy(update={"max_concurrent_flows": 2})) as flows:
        first = await flows.execute_flow(workflow_def=flow)
        await flows.execute_flow(workflow_def=flow)
        await turnstile.has_come(2)
        for _ in range(5):
            await flows.execute_flow(workflow_def=flow, dependencies=[first.run_id], on_dependency_failure="run")
        last = await flows.execute_flow(workflow_def=flow, dependencies=[first.run_id])
        turnstile.fails.add(first.run_id)
        turnstile.let_through(first.run_id)
        await turnstile.has_come(3)  # the slot is taken again
        with anyio.fail_after(5):
            assert (await flows.wait(last.run_id)).state == "failed"
