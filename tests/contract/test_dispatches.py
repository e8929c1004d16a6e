"""Where a message stands changes as the table of legal moves says, and in no other way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from contexten.extensions.flow.states import DISPATCH_MOVES, DispatchState
from contexten.extensions.flow.store import Refused, Transaction
from contexten.extensions.flow.store.notifications import (
    ClaimedDispatch,
    NewNotification,
    claim_dispatches,
    end_sending,
    give_receiver_up,
    give_sending_up,
    insert_notification,
    put_sending_off,
    revive_dispatch,
)

if TYPE_CHECKING:
    from contexten.extensions.flow.store import Store

pytestmark = pytest.mark.anyio

RECEIVER = NewNotification(
    "ntf_1", "one", "webhook", "https://example.com", None, "whsec_x", ("run.failed",), None, None
)
CLAIMED = ClaimedDispatch("dsp_1", "ntf_1", None, None, "run.failed", "run_1", "f", 1.0, 1, None)
INSERT = """
INSERT INTO dispatches (
    dispatch_id, notification_id, type, run_id, flow_id, at, state, attempts, due_at, error, ended_at)
VALUES ('dsp_1', 'ntf_1', 'run.failed', 'run_1', 'f', 1, ?1, 1, 1, 'why', iif(?1 IN ('sent', 'dead'), 2, NULL))"""
CHANGES: list[Callable[[Transaction], object]] = [
    partial(claim_dispatches, at=5.0, until=9.0, limit=9),
    partial(end_sending, claimed=CLAIMED, at=5.0, status=200),
    partial(put_sending_off, claimed=CLAIMED, at=5.0, due_at=9.0, status=500, error="why", body="{}"),
    partial(give_sending_up, claimed=CLAIMED, at=5.0, status=500, error="why", body="{}"),
    partial(give_receiver_up, claimed=CLAIMED, at=5.0, why="gone", status=410, error="why", body="{}"),
    partial(revive_dispatch, dispatch_id="dsp_1", notification_id="ntf_1", at=5.0, actor="test"),
]


async def test_the_table_of_legal_moves_of_a_dispatch_is_what_the_store_does(store: Store) -> None:
    made = set()
    await store.write(partial(insert_notification, new=RECEIVER, at=1.0, actor="test"))
    for before in DispatchState:
        for change in CHANGES:

            def fresh(tx: Transaction, before: DispatchState = before) -> None:
                tx.execute("DELETE FROM dispatches")
                tx.execute("UPDATE notifications SET disabled = NULL")
                tx.execute(INSERT, (before,))

            await store.write(fresh)
            row = await store.row("SELECT * FROM dispatches")
            try:
                await store.write(change)
            except Refused:
                continue
            after = await store.row("SELECT * FROM dispatches")
            assert row is not None
            assert after is not None
            if tuple(after) != tuple(row):
                made.add((before, DispatchState(after["state"])))
    assert made == {(before, after) for before, targets in DISPATCH_MOVES.items() for after in targets}
