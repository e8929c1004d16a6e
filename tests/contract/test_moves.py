"""Guarded moves: what is not in the table, not expected or not ours does not happen, and leaves nothing behind."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from contexten.extensions.flow.errors import IllegalMove, RunNotFound
from contexten.extensions.flow.states import RUN_MOVES, TASK_MOVES, RunState, TaskState
from contexten.extensions.flow.store import ClaimedRun, Refused, Store
from contexten.extensions.flow.store.advances import REQUEST_PENDING
from contexten.extensions.flow.store.claims import release, schedule, take_over, wake_due
from contexten.extensions.flow.store.queue import Rules, claim
from contexten.extensions.flow.store.requests import request
from contexten.extensions.flow.store.verify import verify
from contexten.extensions.flow.strategies import Fifo

from .conftest import Hand, sub_flow_of, task_move

pytestmark = pytest.mark.anyio

TERMINAL_RUNS = [state for state in RunState if state.is_terminal]
ROUTES: dict[TaskState, list[TaskState]] = {
    TaskState.PENDING: [],
    TaskState.RUNNING: [TaskState.RUNNING],
    TaskState.RETRYING: [TaskState.RUNNING, TaskState.RETRYING],
    TaskState.WAITING: [TaskState.WAITING],
    TaskState.COMPLETED: [TaskState.RUNNING, TaskState.COMPLETED],
    TaskState.FAILED: [TaskState.RUNNING, TaskState.FAILED],
    TaskState.SKIPPED: [TaskState.SKIPPED],
    TaskState.CANCELLED: [TaskState.CANCELLED],
}
"""A legal way to each state."""


async def ask(store: Store, run_id: str, action: str) -> RunState:
    return await store.write(lambda tx: request(tx, run_id, action, 4.0, reason=None, actor="me"))


async def take(store: Store, owner: str) -> list[ClaimedRun]:
    return await store.write(lambda tx: take_over(tx, owner, 3.0))


async def in_state(hand: Hand, state: RunState) -> ClaimedRun:
    """A run that came to a state by legal moves."""
    run = await hand.running()
    if state is RunState.PAUSED:
        await ask(hand.store, run.run_id, "pause")
        await hand.advance(run, to=state)
    elif state is RunState.WAITING:
        await hand.advance(run, to=state, wake_at=9.0)
    elif state is RunState.SCHEDULED:
        await hand.advance(run, to=RunState.WAITING, wake_at=9.0)
        await hand.store.write(lambda tx: schedule(tx, run.run_id, run.flow_id, 4.0))
    elif state is not RunState.RUNNING:
        await hand.end(run, state)
    return run


async def test_every_way_to_a_state_is_legal_and_verifies(hand: Hand) -> None:
    for state in RunState:
        run = await in_state(hand, state)
        assert await hand.state(run.run_id) == state
    assert verify(hand.store.path).problems == []


@pytest.mark.parametrize("before", TaskState)
async def test_a_task_moves_as_the_table_says_and_no_other_way(hand: Hand, before: TaskState) -> None:
    for to in TaskState:
        run = await hand.running()
        at = TaskState.PENDING
        for step in ROUTES[before]:
            await hand.advance(run, task_move(step, at))
            at = step
        entries = await hand.count("events")
        if to in TASK_MOVES[before]:
            await hand.advance(run, task_move(to, before))
            assert await hand.count("events") == entries + 1
        else:
            with pytest.raises(Refused):
                await hand.advance(run, task_move(to, before))
            assert await hand.count("events") == entries
    assert verify(hand.store.path).problems == []


async def test_a_task_that_is_not_in_the_expected_state_does_not_move(hand: Hand) -> None:
    run = await hand.running()
    await hand.advance(run, task_move(TaskState.RUNNING))
    entries = await hand.count("events")
    with pytest.raises(Refused):
        await hand.advance(run, task_move(TaskState.COMPLETED, TaskState.WAITING))
    assert await hand.count("events") == entries


async def test_a_change_refused_in_its_last_move_leaves_nothing_of_the_others(hand: Hand) -> None:
    run = await hand.running()
    with pytest.raises(Refused):
        await hand.advance(
            run, task_move(TaskState.RUNNING), task_move(TaskState.COMPLETED, TaskState.RETRYING, task="b")
        )
    assert await hand.count("tasks") == 0
    assert verify(hand.store.path).problems == []


@pytest.mark.parametrize("fence", [0, 2])
async def test_an_owner_with_another_fence_records_nothing(hand: Hand, fence: int) -> None:
    run = await hand.running()
    for to in (None, RunState.COMPLETED, RunState.WAITING):
        fields: dict[str, Any] = {"wake_at": 9.0} if to is RunState.WAITING else {}
        with pytest.raises(Refused):
            await hand.advance(run, task_move(TaskState.RUNNING), fence=fence, to=to, **fields)
    assert await hand.count("tasks") == 0
    assert await hand.state(run.run_id) == "running"


async def test_the_former_owner_of_a_run_that_was_taken_over_records_nothing(hand: Hand) -> None:
    run = await hand.running()
    await hand.advance(run, task_move(TaskState.RUNNING, attempts=1, agent="x"))
    (taken,) = await take(hand.store, "srv_2")
    assert taken.fence > run.fence
    with pytest.raises(Refused):
        await hand.advance(run, task_move(TaskState.COMPLETED, TaskState.RUNNING, attempts=1))
    await hand.advance(taken, task_move(TaskState.RUNNING, TaskState.RUNNING, attempts=2, interruptions=1))
    assert verify(hand.store.path).problems == []


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.RUNNING])
async def test_a_run_that_is_not_running_takes_no_move_of_an_owner(hand: Hand, state: RunState) -> None:
    run = await in_state(hand, state)
    entries = await hand.count("events")
    for to in (None, *RunState):
        with pytest.raises(Refused):
            await hand.advance(run, task_move(TaskState.RUNNING), to=to)
    assert await hand.state(run.run_id) == state
    assert await hand.count("events") == entries


@pytest.mark.parametrize("to", [state for state in RunState if state not in RUN_MOVES[RunState.RUNNING]])
async def test_a_running_run_does_not_leave_the_table(hand: Hand, to: RunState) -> None:
    run = await hand.running()
    with pytest.raises(Refused):
        await hand.advance(run, to=to)


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("action", ["pause", "resume", "cancel"])
async def test_a_request_moves_a_run_only_where_the_table_allows(hand: Hand, state: RunState, action: str) -> None:
    run = await in_state(hand, state)
    entries = await hand.count("events")
    try:
        answered = await ask(hand.store, run.run_id, action)
    except IllegalMove:
        answered = state
        assert await hand.count("events") == entries
    now = RunState(await hand.state(run.run_id))
    assert answered == now
    assert now == state or now in RUN_MOVES[state]
    assert verify(hand.store.path).problems == []


@pytest.mark.parametrize("state", TERMINAL_RUNS)
async def test_what_has_ended_cannot_be_asked_for_anything(hand: Hand, state: RunState) -> None:
    run = await in_state(hand, state)
    for action in ("pause", "resume", *(() if state is RunState.CANCELLED else ("cancel",))):
        with pytest.raises(IllegalMove):
            await ask(hand.store, run.run_id, action)
    with pytest.raises(Refused):
        await hand.store.write(lambda tx: schedule(tx, run.run_id, run.flow_id, 4.0))
    assert await hand.claim() == []
    assert await hand.state(run.run_id) == state


async def test_cancelling_what_is_cancelled_is_no_error_and_no_entry(hand: Hand) -> None:
    run = await in_state(hand, RunState.CANCELLED)
    entries = await hand.count("events")
    assert await ask(hand.store, run.run_id, "cancel") is RunState.CANCELLED
    assert await hand.count("events") == entries


async def test_a_request_for_a_run_that_is_not_there_says_so(hand: Hand) -> None:
    with pytest.raises(RunNotFound):
        await ask(hand.store, "run_nope", "cancel")


async def test_a_pause_that_was_withdrawn_meanwhile_does_not_happen(hand: Hand) -> None:
    run = await hand.running()
    await ask(hand.store, run.run_id, "pause")
    await ask(hand.store, run.run_id, "resume")
    assert await hand.advance(run, to=RunState.PAUSED) == REQUEST_PENDING
    assert await hand.state(run.run_id) == "running"


@pytest.mark.parametrize("action", ["pause", "cancel"])
async def test_a_run_that_was_asked_for_something_meanwhile_does_not_go_to_wait(hand: Hand, action: str) -> None:
    run = await hand.running()
    await ask(hand.store, run.run_id, action)
    moved = await hand.advance(run, task_move(TaskState.WAITING, wake_at=9.0), to=RunState.WAITING, wake_at=9.0)
    assert moved == REQUEST_PENDING
    assert await hand.state(run.run_id) == "running"
    assert await hand.count("tasks") == 1  # the tasks' moves happened all the same


async def test_a_cancelled_idle_run_leaves_no_task_unfinished(hand: Hand) -> None:
    run = await hand.running()
    await hand.advance(run, task_move(TaskState.WAITING, wake_at=9.0), to=RunState.WAITING, wake_at=9.0)
    assert await ask(hand.store, run.run_id, "cancel") is RunState.CANCELLED
    rows = await hand.store.rows("SELECT task, state FROM tasks ORDER BY task")
    assert [tuple(row) for row in rows] == [("a", "cancelled"), ("b", "cancelled")]
    assert verify(hand.store.path).problems == []


async def test_a_run_is_claimed_once_in_the_order_of_the_queue_and_within_the_limit(hand: Hand) -> None:
    for key in (3.0, 1.0, 2.0, 1.0):
        await hand.submit(queue_key=key)
    first = await hand.claim(limit=10, max_concurrent=3)
    assert [run.run_id for run in first] == ["run_2", "run_4", "run_3"]
    assert await hand.claim("srv_2", limit=10, max_concurrent=3) == []
    await hand.end(first[0])
    assert [run.run_id for run in await hand.claim("srv_2", limit=10, max_concurrent=3)] == ["run_1"]
    assert await hand.claim("srv_2", limit=10, max_concurrent=100) == []


async def test_a_wait_is_over_at_its_time_and_not_before(hand: Hand) -> None:
    run = await in_state(hand, RunState.WAITING)
    assert await hand.store.write(lambda tx: wake_due(tx, 8.999)) == 0
    assert await hand.store.write(lambda tx: wake_due(tx, 9.0)) == 1
    assert await hand.store.write(lambda tx: wake_due(tx, 9.0)) == 0
    assert await hand.state(run.run_id) == "scheduled"


async def test_a_crash_is_counted_once_and_an_orderly_stop_never(hand: Hand) -> None:
    run = await hand.running()
    await hand.advance(run, task_move(TaskState.RUNNING, attempts=3, agent="x"))
    for owner in ("srv_2", "srv_3"):  # the second comes before anything was restarted
        (run,) = await take(hand.store, owner)
        assert [(row.attempts, row.interruptions) for row in run.tasks] == [(3, 1)]
    await hand.advance(run, task_move(TaskState.RUNNING, TaskState.RUNNING, attempts=4, interruptions=1, agent="x"))
    for owner in ("srv_4", "srv_5"):
        await hand.store.write(partial(release, runs=[(run.run_id, run.flow_id, run.fence)], at=3.0))
        (run,) = await take(hand.store, owner)
        assert [(row.attempts, row.interruptions) for row in run.tasks] == [(3, 1)]
    assert verify(hand.store.path).problems == []


async def test_a_sub_flow_is_recorded_paused_and_taken_over_with_its_parent(hand: Hand) -> None:
    run = await hand.running()
    child = sub_flow_of(run)
    await hand.advance(run, task_move(TaskState.WAITING, child_run_id="run_child"), children=(child,))
    assert await hand.state("run_child") == "running"
    with pytest.raises(IllegalMove, match=run.run_id):
        await ask(hand.store, "run_child", "pause")
    (taken,) = await take(hand.store, "srv_2")
    assert [other.run_id for other in taken.children] == ["run_child"]
    await ask(hand.store, run.run_id, "pause")
    await hand.advance(taken, to=RunState.PAUSED)
    assert await hand.state("run_child") == "paused"
    assert await ask(hand.store, run.run_id, "cancel") is RunState.CANCELLED
    assert await hand.state("run_child") == "cancelled"
    assert verify(hand.store.path).problems == []


async def test_a_sub_flow_is_paused_and_queued_again_with_its_waiting_parent(hand: Hand) -> None:
    run = await hand.running()
    child = sub_flow_of(run)
    await hand.advance(run, task_move(TaskState.WAITING, child_run_id="run_child"), children=(child,))
    await hand.advance(run, to=RunState.WAITING, wake_at=9.0)
    assert await ask(hand.store, run.run_id, "pause") is RunState.PAUSED
    assert await hand.state("run_child") == "paused"
    assert await ask(hand.store, run.run_id, "resume") is RunState.SCHEDULED
    (claimed,) = await hand.store.write(
        lambda tx: claim(tx, "srv_2", 10.0, limit=1, rules=Rules(strategy=Fifo(), max_concurrent_flows=9)).runs
    )
    assert [other.run_id for other in claimed.children] == ["run_child"]
    assert claimed.children[0].paused_s > 0
    assert verify(hand.store.path).problems == []
