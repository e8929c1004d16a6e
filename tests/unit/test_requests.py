"""Requests that meet a move of the owner in one commit: whoever was acknowledged is obeyed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import IllegalMove
from contexten.extensions.flow.execution.intake import Intake
from contexten.extensions.flow.states import RunState
from contexten.extensions.flow.store import ClaimedRun, RunMove, Store, Transaction
from contexten.extensions.flow.store.advances import REQUEST_PENDING, advance
from contexten.extensions.flow.store.claims import take_over
from contexten.extensions.flow.store.queue import Rules, claim
from contexten.extensions.flow.store.requests import request
from contexten.extensions.flow.strategies import Fifo

if TYPE_CHECKING:
    from tests.unit.conftest import Gate

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(settings: FlowSettings) -> AsyncIterator[Store]:
    """A store with one queued run."""
    flow = {"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}
    async with FlowService(settings, drive=False) as flows:
        await flows.execute_flow(workflow_def=flow)
    opened = Store(settings.database)
    await opened.open()
    yield opened
    await opened.close()


def ask(tx: Transaction, run: ClaimedRun, action: str) -> RunState:
    return request(tx, run.run_id, action, 2.0, reason=None, actor="test")


def leave(run: ClaimedRun, to: RunState, **fields: Any) -> RunMove:
    return RunMove(run_id=run.run_id, flow_id=run.flow_id, fence=run.fence, at=3.0, to=to, **fields)


async def claimed(store: Store) -> ClaimedRun:
    (run,) = await store.write(
        lambda tx: claim(tx, "owner", 1.0, limit=1, rules=Rules(strategy=Fifo(), max_concurrent_flows=1)).runs
    )
    return run


async def state_of(store: Store, run: ClaimedRun) -> str:
    row = await store.row("SELECT state FROM runs WHERE run_id = ?", (run.run_id,))
    assert row is not None
    return str(row[0])


async def test_a_resume_that_comes_before_the_pause_took_effect_wins(store: Store) -> None:
    run = await claimed(store)
    await store.write(lambda tx: ask(tx, run, "pause"))

    def both(tx: Transaction) -> int:
        assert ask(tx, run, "resume") is RunState.RUNNING
        return advance(tx, leave(run, RunState.PAUSED))

    assert await store.write(both) == REQUEST_PENDING
    assert await state_of(store, run) == "running"


async def test_a_cancel_that_comes_before_a_pause_or_a_wait_took_effect_wins(store: Store) -> None:
    run = await claimed(store)
    await store.write(lambda tx: ask(tx, run, "cancel"))
    for state in (RunState.PAUSED, RunState.WAITING):
        assert await store.write(lambda tx, state=state: advance(tx, leave(run, state))) == REQUEST_PENDING  # type: ignore[misc]  # a lambda's default has no type
    assert await state_of(store, run) == "running"


async def test_a_pause_that_comes_before_a_wait_took_effect_wins(store: Store) -> None:
    run = await claimed(store)
    await store.write(lambda tx: ask(tx, run, "pause"))
    moved = await store.write(lambda tx: advance(tx, leave(run, RunState.WAITING, wake_at=9.0)))
    assert moved == REQUEST_PENDING
    assert await store.write(lambda tx: advance(tx, leave(run, RunState.PAUSED))) != REQUEST_PENDING
    assert await state_of(store, run) == "paused"


async def test_a_pause_does_not_take_back_a_cancel(store: Store) -> None:
    run = await claimed(store)
    await store.write(lambda tx: ask(tx, run, "cancel"))
    with pytest.raises(IllegalMove, match="being cancelled"):
        await store.write(lambda tx: ask(tx, run, "pause"))


async def test_an_owner_that_was_passed_by_can_record_nothing(store: Store) -> None:
    run = await claimed(store)
    (taken,) = await store.write(lambda tx: take_over(tx, "another", 2.0))
    assert taken.fence == run.fence + 1
    with pytest.raises(Exception, match="no longer running under fence"):
        await store.write(lambda tx: advance(tx, leave(run, RunState.COMPLETED)))
    assert await state_of(store, run) == "running"


@pytest.mark.parametrize(("action", "state"), [("cancel", "cancelled"), ("pause", "paused")])
async def test_what_is_asked_of_a_run_between_its_claim_and_its_beginning_is_obeyed(
    settings: FlowSettings, gate: Gate, monkeypatch: pytest.MonkeyPatch, action: Any, state: str
) -> None:
    flow = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["gate"]}]}]}
    claims: list[Sequence[ClaimedRun]] = []
    async with FlowService(settings, agents=[gate], drive=False) as flows:
        run = await flows.execute_flow(workflow_def=flow)
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "take", lambda _intake, runs: claims.append(runs))
        async with FlowService(settings, agents=[gate]) as flows:
            with anyio.fail_after(5):
                while not any(claims):
                    await anyio.lowlevel.checkpoint()
            assert (await flows.control(run.run_id, action)).state == "running"
            patch.undo()
            conductor = flows._driver.conductor
            assert conductor is not None
            for runs in claims:
                conductor.intake.take(runs)
            with anyio.fail_after(5):
                assert (await flows.wait(run.run_id)).state == state
    assert not gate.reached.is_set()
