"""The queue in the store: dependencies, limits, pools and deadlines decide in the claiming transaction who starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.states import RunState
from contexten.extensions.flow.store import ClaimedRun, Refused, Store
from contexten.extensions.flow.store.claims import wake_due
from contexten.extensions.flow.store.deadlines import miss_due
from contexten.extensions.flow.store.flows import SaveFlow, create
from contexten.extensions.flow.store.queue import Rules, claim, put_limits
from contexten.extensions.flow.store.requests import request
from contexten.extensions.flow.store.retention import prune
from contexten.extensions.flow.store.sql import SQL
from contexten.extensions.flow.store.verify import verify
from contexten.extensions.flow.strategies import Fifo, strategy_named

from .conftest import DEFINITION, Hand

pytestmark = pytest.mark.anyio

RULES = Rules(strategy=Fifo(), max_concurrent_flows=100)


async def other_flow(store: Store, flow_id: str, tags: str = "[]") -> None:
    flow = SaveFlow(
        flow_id=flow_id,
        name=flow_id,
        description=None,
        tags=tags,
        digest="d",
        definition=DEFINITION,
        at=1.0,
        actor=None,
    )
    await store.write(lambda tx: create(tx, flow))


async def limit(store: Store, kind: str, **sizes: float) -> None:
    await store.write(lambda tx: put_limits(tx, kind, sizes))


async def look(hand: Hand, rules: Rules = RULES) -> tuple[list[str], bool]:
    claimed = await hand.store.write(lambda tx: claim(tx, "srv_1", 2.0, limit=100, rules=rules))
    return [run.run_id for run in claimed.runs], claimed.has_blocked


async def claimed(hand: Hand) -> ClaimedRun:
    (run,) = await hand.claim()
    return run


async def test_a_run_starts_when_all_that_it_depends_on_has_completed(hand: Hand) -> None:
    first, second = await hand.submit(), await hand.submit()
    third = await hand.submit(dependencies=(first, second))
    one, two = await hand.claim()
    assert (await look(hand)) == ([], True)
    await hand.end(one)
    assert (await look(hand)) == ([], True)
    await hand.end(two)
    assert (await look(hand)) == ([third], False)
    assert verify(hand.store.path).problems == []


@pytest.mark.parametrize("ended", [RunState.FAILED, RunState.CANCELLED])
async def test_a_run_whose_dependency_failed_fails_without_starting(hand: Hand, ended: RunState) -> None:
    first = await hand.submit()
    second = await hand.submit(dependencies=(first,))
    third = await hand.submit(dependencies=(second,))
    fourth = await hand.submit(dependencies=(second,), on_dependency_failure="run")
    await hand.end(await claimed(hand), ended)
    assert (await look(hand))[0] == []
    assert await hand.state(second) == "failed"
    row = await hand.store.row("SELECT error, started_at FROM runs WHERE run_id = ?", (second,))
    assert row is not None
    assert json.loads(row[0])["kind"] == "dependency_failed"
    assert first in json.loads(row[0])["message"]
    assert row[1] is None
    assert (await look(hand))[0] == [fourth]
    assert await hand.state(third) == "failed"
    assert verify(hand.store.path).problems == []


async def test_a_dependency_on_a_flow_is_one_on_its_latest_run_or_else_on_its_first(hand: Hand) -> None:
    await other_flow(hand.store, "other")
    first = await hand.submit(flow_id="other")
    on_latest = await hand.submit(dependencies=("other",))
    later = await hand.submit(flow_id="other")
    await other_flow(hand.store, "empty")
    on_first = await hand.submit(dependencies=("empty",))
    runs = {run.run_id: run for run in await hand.claim()}
    assert runs.keys() == {first, later}
    await hand.end(runs[first])
    assert (await look(hand))[0] == [on_latest]
    coming = await hand.submit(flow_id="empty")
    (run,) = await hand.claim()
    assert run.run_id == coming
    await hand.end(run)
    assert (await look(hand))[0] == [on_first]


async def test_a_dependency_that_has_ended_already_holds_nothing_up(hand: Hand) -> None:
    first = await hand.submit()
    await hand.end(await claimed(hand))
    second = await hand.submit(dependencies=(first,))
    assert (await look(hand))[0] == [second]


async def test_unknown_dependencies_are_refused_by_name_and_leave_no_run(hand: Hand) -> None:
    await hand.submit()
    with pytest.raises(InvalidArguments, match="nobody") as caught:
        await hand.submit(dependencies=("run_1", "nobody"))
    assert caught.value.issues[0].path == "/dependencies/1"
    assert await hand.count("runs") == 1


async def test_runs_that_would_wait_for_each_other_are_refused_by_name(hand: Hand) -> None:
    await other_flow(hand.store, "later")
    first = await hand.submit(dependencies=("later",))
    second = await hand.submit(dependencies=(first,))
    with pytest.raises(InvalidArguments) as caught:
        await hand.submit(flow_id="later", dependencies=(second,))
    assert f"run_4 -> {second} -> {first} -> run_4" in caught.value.message or (
        f"{second} -> {first}" in caught.value.message
    )
    with pytest.raises(InvalidArguments, match="later -> later"):
        await hand.submit(flow_id="later", dependencies=("later",))
    assert await hand.count("runs") == 2


async def test_a_cancelled_or_paused_run_waits_for_nothing(hand: Hand) -> None:
    first = await hand.submit()
    second = await hand.submit(dependencies=(first,))
    third = await hand.submit(dependencies=(first,))
    for run_id, action in ((second, "cancel"), (third, "pause")):
        await hand.store.write(
            lambda tx, run_id=run_id, action=action: request(tx, run_id, action, 2.0, reason=None, actor=None)  # type: ignore[misc]  # a lambda's default has no type
        )
    await hand.end(await claimed(hand))
    assert (await look(hand))[0] == []
    await hand.store.write(lambda tx: request(tx, third, "resume", 3.0, reason=None, actor=None))
    assert (await look(hand))[0] == [third]
    assert verify(hand.store.path).problems == []


async def test_a_flow_s_limit_keeps_back_its_own_runs_only_and_frees_them_in_order(hand: Hand) -> None:
    await other_flow(hand.store, "other")
    await limit(hand.store, "flow", flow=2)
    own = [await hand.submit() for _ in range(5)]
    another = await hand.submit(flow_id="other")
    started = await hand.claim()
    assert [run.run_id for run in started] == [own[0], own[1], another]
    assert await look(hand) == ([], True)
    await hand.end(started[0])
    assert (await look(hand))[0] == [own[2]]
    await limit(hand.store, "flow", flow=0)
    assert await look(hand) == ([own[3], own[4]], False)


async def test_a_tag_s_limit_counts_the_runs_of_all_its_flows(hand: Hand) -> None:
    await other_flow(hand.store, "one", '["slow"]')
    await other_flow(hand.store, "two", '["slow", "red"]')
    await limit(hand.store, "tag", slow=1)
    first, second = await hand.submit(flow_id="one"), await hand.submit(flow_id="two")
    free = await hand.submit()
    started = await hand.claim()
    assert [run.run_id for run in started] == [first, free]
    await hand.end(started[0])
    assert (await look(hand))[0] == [second]


async def test_a_long_row_of_runs_over_their_limit_does_not_hide_the_ones_behind(hand: Hand) -> None:
    await other_flow(hand.store, "other")
    await limit(hand.store, "flow", flow=1)
    for _ in range(300):
        await hand.submit()
    last = await hand.submit(flow_id="other")
    found: list[str] = []
    for _ in range(100):
        runs, has_blocked = await look(hand)
        found += runs
        if last in found:
            break
        assert has_blocked
    assert last in found
    assert len(found) == 2


async def test_a_pool_is_never_given_out_twice_and_order_is_kept(hand: Hand) -> None:
    await limit(hand.store, "pool", gpu=2)
    two = [await hand.submit(demands='{"gpu": 1}') for _ in range(2)]
    large = await hand.submit(demands='{"gpu": 2}')
    small = await hand.submit(demands='{"gpu": 1}')
    started = await hand.claim()
    assert [run.run_id for run in started] == two
    await hand.end(started[0])
    assert await look(hand) == ([], True)  # the large one is next, and the small one does not pass it
    await hand.end(started[1])
    (run,) = await hand.claim()
    assert run.run_id == large
    await hand.end(run)
    assert await look(hand) == ([small], False)


async def test_a_demand_larger_than_its_pool_has_become_is_cut_to_it(hand: Hand) -> None:
    await limit(hand.store, "pool", gpu=4)
    run_id = await hand.submit(demands='{"gpu": 4}')
    await limit(hand.store, "pool", gpu=1)
    assert await look(hand) == ([run_id], False)


@pytest.mark.parametrize("on_deadline", ["continue", "cancel"])
async def test_a_missed_deadline_is_journaled_once_and_cancels_where_asked(hand: Hand, on_deadline: str) -> None:
    queued = await hand.submit(deadline=10.0, on_deadline=on_deadline)
    await hand.submit(deadline=30.0, on_deadline=on_deadline)
    assert await hand.store.write(lambda tx: miss_due(tx, 9.0)) == 0
    assert await hand.store.write(lambda tx: miss_due(tx, 11.0)) == 1
    assert await hand.store.write(lambda tx: miss_due(tx, 12.0)) == 0
    rows = await hand.store.rows("SELECT type FROM events WHERE run_id = ? ORDER BY seq", (queued,))
    types = [row[0] for row in rows]
    assert types.count("run.deadline_missed") == 1
    assert await hand.state(queued) == ("cancelled" if on_deadline == "cancel" else "scheduled")
    assert verify(hand.store.path).problems == []


async def test_what_ended_in_time_misses_nothing(hand: Hand) -> None:
    await hand.submit(deadline=10.0, on_deadline="cancel")
    await hand.end(await claimed(hand))
    assert await hand.store.write(lambda tx: miss_due(tx, 11.0)) == 0


async def test_pruning_takes_a_run_s_dependencies_with_it(hand: Hand) -> None:
    first = await hand.submit()
    second = await hand.submit(dependencies=(first,))
    await hand.end(await claimed(hand))
    (run,) = await hand.claim()
    assert run.run_id == second
    await hand.end(run)
    assert await hand.store.write(lambda tx: prune(tx, ended_before=100.0, up_to=0)) == 2
    assert await hand.count("dependencies") == 0


async def test_a_key_of_another_order_than_the_queue_s_is_refused(hand: Hand) -> None:
    await hand.submit(keys="fifo/300")  # the queue has no keys yet
    await hand.store.write(lambda tx: tx.execute(SQL["put_setting"], ("queue_keys", "priority/300")))
    for keys in ("fifo/300", "priority/60"):
        with pytest.raises(Refused):
            await hand.submit(keys=keys)
    await hand.submit(keys="priority/300")
    assert await hand.count("runs") == 2


async def test_places_of_another_server_s_agents_are_not_taken_from_this_one_s(hand: Hand) -> None:
    rules = Rules(
        strategy=strategy_named("resource_aware", aging_interval_s=1), max_concurrent_flows=100, agents={"agent:a": 1}
    )
    for _ in range(3):
        await hand.submit(demands='{"agent:a": 1}')

    async def started(owner: str) -> int:
        claimed = await hand.store.write(lambda tx: claim(tx, owner, 2.0, limit=100, rules=rules))
        return len(claimed.runs)

    assert [await started("srv_1"), await started("srv_2"), await started("srv_1")] == [1, 1, 0]


async def test_what_is_due_is_looked_at_in_batches(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contexten.extensions.flow.store.deadlines.BATCH", 2)
    monkeypatch.setattr("contexten.extensions.flow.store.claims.WAKE_BATCH", 2)
    for _ in range(3):
        await hand.submit(deadline=10.0, on_deadline="continue")
    assert [await hand.store.write(lambda tx: miss_due(tx, 11.0)) for _ in range(3)] == [2, 1, 0]
    for run in await hand.claim():
        await hand.advance(run, to=RunState.WAITING, wake_at=5.0)
    assert [await hand.store.write(lambda tx: wake_due(tx, 6.0)) for _ in range(3)] == [2, 1, 0]


async def test_runs_kept_back_by_several_limits_are_found_by_each(hand: Hand) -> None:
    names = ["one", "three", "two"]
    for name in names:
        await other_flow(hand.store, name)
        await limit(hand.store, "flow", **{name: 1})
        for _ in range(3):
            await hand.submit(flow_id=name)
    await hand.submit(dependencies=("run_1",))
    assert len(await hand.claim()) == 3
    assert [row[0] for row in await hand.store.rows(SQL["blocking_limits"])] == [f"flow:{name}" for name in names]


async def test_the_plan_of_a_claim_steps_through_an_index(store: Store) -> None:
    async def plan(query: str, parameters: tuple[Any, ...]) -> str:
        return " ".join(str(row[3]) for row in await store.rows(f"EXPLAIN QUERY PLAN {SQL[query]}", parameters))

    assert "runs_queue" in await plan("queue_window", (1,))
    assert "TEMP B-TREE" not in await plan("queue_window", (1,))
    assert "runs_blocked" in await plan("unblock_first", ("flow:x", 1))
    assert "runs_flow_active" in await plan("flow_slots", ("x",))
    assert "dependencies_ended" in await plan("runs_with_ended_dependencies", (1,))
    assert (await plan("blocking_limits", ())).count("COVERING INDEX runs_blocked (blocked>?)") == 2


async def test_what_is_due_and_what_a_flow_took_is_read_in_the_order_of_an_index(store: Store) -> None:
    for query, parameters, index in (
        ("due_runs", (1.0, 1), "runs_wake"),
        ("due_deadlines", (1.0, 1), "runs_deadline"),
        ("next_wake", (), "runs_wake"),
        ("next_wake", (), "runs_deadline"),
        ("run_durations", ("x", 1), "runs_flow_ended (flow_id=? AND state=?)"),
        ("task_durations", ("x", 1), "runs_flow_ended (flow_id=? AND state=?)"),
    ):
        rows = await store.rows(f"EXPLAIN QUERY PLAN {SQL[query]}", parameters)
        steps = " ".join(str(row[3]) for row in rows)
        assert index in steps
        assert "TEMP B-TREE" not in steps
