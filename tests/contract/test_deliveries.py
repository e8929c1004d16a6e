"""What is asked of deliveries again and again walks no trigger's history, and no change of them is without end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow.errors import StoreConflict, TriggerNotFound
from contexten.extensions.flow.states import DELIVERY_MOVES, DeliveryState
from contexten.extensions.flow.store import Stale, Transaction, triggers
from contexten.extensions.flow.store.sql import SQL
from contexten.extensions.flow.store.triggers import NewDelivery, Settled, TriggerRow

if TYPE_CHECKING:
    from contexten.extensions.flow.store import Store

pytestmark = pytest.mark.anyio


def row(**fields: Any) -> TriggerRow:
    """A trigger `hook`."""
    given: dict[str, Any] = {
        "trigger_id": "hook",
        "name": "hook",
        "kind": "webhook",
        "config": "{}",
        "flow_id": "target",
        "handler": None,
        "inputs": None,
        "filter": None,
        "secret": None,
        "enabled": True,
        "next_at": None,
        "at": 1.0,
        "actor": "test",
        "is_bounded": False,
    }
    return TriggerRow(**{**given, **fields})


async def deliver(store: Store, *numbers: int) -> None:
    for number in numbers:
        new = NewDelivery(
            trigger_id="hook",
            delivery_id=f"dlv_{number}",
            event_id=str(number),
            type="test",
            payload="null",
            at=1.0,
            max_pending=1000,
        )
        await store.write(partial(triggers.accept, new=new))


async def settle(store: Store, *numbers: int) -> None:
    await store.write(lambda tx: tx.execute(SQL["take_trigger"], ("srv_1", "hook")))
    for number in numbers:
        done = Settled(
            trigger_id="hook", delivery_id=f"dlv_{number}", round=0, state="filtered", at=2.0, flow_id="target"
        )
        await store.write(partial(triggers.settle, settled=done, server_id="srv_1"))


@pytest.mark.parametrize(
    ("query", "parameters", "index"),
    [
        ("waiting_deliveries", ('["hook"]',), "deliveries_accepted"),
        ("count_waiting", ("hook", 10), "deliveries_accepted"),
        ("free_triggers", ("[]", 10), "deliveries_accepted (trigger_id>?)"),
        (
            "list_failed_deliveries",
            {"trigger_id": None, "before": 9, "limit": 5},
            "deliveries_failed (state=? AND seq<?)",
        ),
        ("due_triggers", (1.0, "[]", 10), "triggers_next (next_at<?)"),
        ("next_trigger_at", ("[]",), "triggers_next"),
        ("left_waiting", ("hook",), "deliveries_accepted"),
        ("next_deliveries", ("hook", 20), "deliveries_accepted"),
        ("active_runs", ("hook",), "deliveries_active"),
        ("forget_ended_runs", ("hook",), "deliveries_active"),
        ("list_deliveries_of", {"trigger_id": "hook", "before": 9, "state": None, "limit": 5}, "deliveries_trigger"),
        ("clear_deliveries", ("hook", 10), "deliveries_trigger"),
        ("latest_payload", ("hook",), "deliveries_trigger"),
        ("any_flow_trigger", (), "triggers_flow"),
        ("triggers_of_end", (1.0, "target", "completed"), "triggers_flow"),
    ],
)
async def test_what_is_asked_for_again_and_again_steps_through_an_index_of_its_own(
    store: Store, query: str, parameters: Any, index: str
) -> None:
    steps = [str(row[3]) for row in await store.rows(f"EXPLAIN QUERY PLAN {SQL[query]}", parameters)]
    assert any(f"INDEX {index}" in step for step in steps), steps
    slow = ("SCAN deliveries", "SCAN triggers", "USE TEMP B-TREE")
    assert not [step for step in steps if step.startswith(slow)], steps


async def test_a_trigger_is_cleared_in_batches_before_it_is_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "BATCH", 2)
    await store.write(partial(triggers.create, row=row()))
    await deliver(store, *range(6))
    await settle(store, *range(5))
    cleared = [await store.write(partial(triggers.clear, trigger_id="hook")) for _ in range(3)]
    assert cleared == [True, True, False]
    assert [row[0] for row in await store.rows("SELECT delivery_id FROM deliveries")] == ["dlv_5"]  # what waits, waits
    await store.write(partial(triggers.delete, trigger_id="hook", at=3.0, actor="test"))
    assert await store.rows("SELECT 1 FROM deliveries") == []


async def test_a_change_that_was_made_from_an_older_state_is_refused(store: Store) -> None:
    await store.write(partial(triggers.create, row=row()))
    await store.write(partial(triggers.update, row=row(name="one", at=2.0, before=1.0)))
    with pytest.raises(Stale):
        await store.write(partial(triggers.update, row=row(name="two", at=3.0, before=1.0)))
    with pytest.raises(TriggerNotFound):
        await store.write(partial(triggers.update, row=row(trigger_id="gone", at=3.0, before=1.0)))
    found = await store.row(SQL["read_trigger"], ("hook",))
    assert found is not None
    assert found["name"] == "one"


async def test_all_servers_hear_where_a_trigger_is_left_with_what_waits(store: Store) -> None:
    async def left() -> int:
        return len(await store.rows("SELECT 1 FROM events WHERE type = 'trigger.released'"))

    await store.write(partial(triggers.create, row=row()))
    await deliver(store, 1)
    leave = partial(triggers.leave, trigger_id="hook", server_id="srv_1", at=2.0)
    await store.write(leave)  # not that server's
    assert await left() == 0
    await store.write(lambda tx: tx.execute(SQL["take_trigger"], ("srv_1", "hook")))
    await store.write(leave)
    assert await left() == 1
    await settle(store, 1)
    await store.write(leave)  # nothing waits
    assert await left() == 1


async def test_a_question_with_a_value_of_no_type_of_the_database_is_a_defect_of_the_question(store: Store) -> None:
    with pytest.raises(StoreConflict) as refused:
        await store.row(SQL["read_trigger"], (object(),))
    assert not refused.value.may_pass


async def test_the_table_of_legal_moves_of_a_delivery_is_what_the_store_does(store: Store) -> None:
    await store.write(partial(triggers.create, row=row()))
    await store.write(lambda tx: tx.execute(SQL["take_trigger"], ("srv_1", "hook")))

    def settled(state: DeliveryState) -> Callable[[Transaction], object]:
        done = Settled(
            trigger_id="hook",
            delivery_id="dlv_1",
            round=0,
            state=state,
            at=2.0,
            run_id="run_1" if state is DeliveryState.STARTED else None,
            error="{}" if state is DeliveryState.FAILED else None,
        )
        return partial(triggers.settle, settled=done, server_id="srv_1")

    changes: list[Callable[[Transaction], object]] = [
        partial(triggers.redeliver, delivery_id="dlv_1", at=3.0, actor="test"),
        *(settled(state) for state in DeliveryState if state is not DeliveryState.ACCEPTED),
    ]
    made = set()
    for before in DeliveryState:
        for change in changes:
            await store.write(lambda tx: tx.execute("DELETE FROM deliveries"))
            await deliver(store, 1)
            if before is not DeliveryState.ACCEPTED:
                await store.write(settled(before))
            count = len(await store.rows("SELECT 1 FROM events"))
            await store.write(change)
            after = await store.row("SELECT state FROM deliveries")
            assert after is not None
            if len(await store.rows("SELECT 1 FROM events")) > count:
                made.add((before, DeliveryState(after[0])))
            else:
                assert after[0] == before
    assert made == {(before, after) for before, targets in DELIVERY_MOVES.items() for after in targets}
