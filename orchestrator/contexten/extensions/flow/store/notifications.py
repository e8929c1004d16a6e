"""Who is told of runs' events, and the messages to them: each is claimed by one server for each try."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..clock import make_id
from .consumers import begin, end
from .sql import SQL
from .writer import Event, Refused, Transaction

CONSUMER = "notifications"
"""Who takes the journal's entries here, among the consumers."""

QUEUED = "notification.queued"
"""The journal's entry by which all servers hear that a message is to be sent."""

ENABLED = "notification.enabled"
"""The same of a receiver for which messages may wait."""

BATCH = 200  # dispatches a transaction


class NewNotification(NamedTuple):
    """A receiver to be recorded."""

    notification_id: str
    name: str
    kind: str
    url: str | None
    secret_name: str | None
    secret: str | None
    events: tuple[str, ...]
    flow_id: str | None
    tag: str | None


class ClaimedDispatch(NamedTuple):
    """A message that this process may try to send until its claim ends."""

    dispatch_id: str
    notification_id: str | None
    reply_url: str | None
    reply_type: str | None
    type: str
    run_id: str
    flow_id: str
    at: float
    attempts: int
    """This try included."""
    body: str | None
    """What was sent before; None for the first try."""


def insert_notification(tx: Transaction, new: NewNotification, at: float, actor: str) -> None:
    """Record a receiver; it is told of what comes after."""
    row = new._replace(events=json.dumps(new.events))  # type: ignore[arg-type]  # as the column has it
    tx.execute(SQL["insert_notification"], (*row, tx.seq, at))
    hear_of_runs(tx, at)
    data = {"notification_id": new.notification_id, "kind": new.kind, "events": new.events}
    tx.event("notification.created", at, flow_id=new.flow_id, actor=actor, data=json.dumps(data))


def delete_dispatches(tx: Transaction, notification_id: str) -> bool:
    """Delete up to a batch of a receiver's messages; answers whether there may be more."""
    return tx.execute(SQL["delete_dispatches_of"], (notification_id, BATCH)).rowcount == BATCH


def delete_notification(tx: Transaction, notification_id: str, at: float, actor: str) -> bool:
    """Delete a receiver with the messages that it has left; answers whether it was there."""
    while delete_dispatches(tx, notification_id):
        pass
    if not tx.execute(SQL["delete_notification"], (notification_id,)).rowcount:
        return False
    tx.event("notification.deleted", at, actor=actor, data=json.dumps({"notification_id": notification_id}))
    hear_no_more(tx)
    return True


def hear_of_runs(tx: Transaction, at: float) -> None:
    """Somebody is to be told of runs from now on: a receiver, or who uses a Slack command."""
    begin(tx, CONSUMER, at)


def hear_no_more(tx: Transaction) -> None:
    """Nobody may be left who is to be told."""
    if not tx.row(SQL["needs_notifications"])[0]:
        end(tx, CONSUMER)


def queue_dispatches(tx: Transaction, events: Sequence[Event]) -> None:
    """Make messages of the journal's entries: for each receiver that asks for them, and for the Slack command by which
    a run was started that has ended."""
    for event in events:
        place = (event.seq, event.type, event.run_id)
        messages = [(receiver, None, None, flow) for receiver, flow in tx.rows(SQL["notifications_of"], place)]
        messages += [(None, *reply) for reply in tx.rows(SQL["slack_reply_of"], place)]
        for notification_id, reply_url, reply_type, flow_id in messages:
            dispatch_id = make_id("dsp_", event.at)
            row = (notification_id, reply_url, reply_type, event.type, event.run_id, flow_id, event.at, event.at)
            tx.execute(SQL["insert_dispatch"], (dispatch_id, *row))
            _enter(tx, QUEUED, event.at, notification_id, dispatch_id)


def _enter(
    tx: Transaction,
    what: str,
    at: float,
    notification_id: str | None,
    dispatch_id: str,
    *,
    actor: str | None = None,
    **more: Any,
) -> None:
    data = {"notification_id": notification_id, "dispatch_id": dispatch_id, **more}
    text = json.dumps({name: value for name, value in data.items() if value is not None})
    tx.event(what, at, actor=actor, data=text)


def claim_dispatches(tx: Transaction, at: float, until: float, limit: int) -> list[ClaimedDispatch]:
    """Take messages that are due, at most one for each receiver, for one try that ends before `until`."""
    due = tx.rows(SQL["due_dispatches"], (at, limit))
    return [ClaimedDispatch(*tx.row(SQL["claim_dispatch"], (until, dispatch_id))) for (dispatch_id,) in due]


def end_sending(tx: Transaction, claimed: ClaimedDispatch, at: float, status: int) -> None:
    """The receiver has it. Nothing happens where another server took it over meanwhile, here and below."""
    tx.execute(SQL["end_sending"], (status, at, claimed.dispatch_id, claimed.attempts))
    if tx.cursor.rowcount:
        _enter(tx, "notification.sent", at, claimed.notification_id, claimed.dispatch_id, status=status)


def put_sending_off(
    tx: Transaction,
    claimed: ClaimedDispatch,
    at: float,
    due_at: float,
    *,
    status: int | None,
    error: str,
    body: str | None,
) -> None:
    """The try failed; the next one follows at `due_at`."""
    tx.execute(SQL["put_sending_off"], (status, error, body, due_at, claimed.dispatch_id, claimed.attempts))
    if tx.cursor.rowcount:
        _enter(tx, "notification.retrying", at, claimed.notification_id, claimed.dispatch_id, error=error)


def give_sending_up(
    tx: Transaction, claimed: ClaimedDispatch, at: float, *, status: int | None, error: str, body: str | None
) -> None:
    """The last try failed."""
    tx.execute(SQL["give_sending_up"], (status, error, body, at, claimed.dispatch_id, claimed.attempts))
    if tx.cursor.rowcount:
        _enter(tx, "notification.dead", at, claimed.notification_id, claimed.dispatch_id, error=error)


def disable_notification(
    tx: Transaction, notification_id: str | None, at: float, why: str, actor: str | None = None
) -> None:
    """Send nothing more to a receiver until it is enabled; what waits for it stays."""
    tx.execute(SQL["disable_notification"], (why, notification_id))
    if tx.cursor.rowcount:
        data = {"notification_id": notification_id, "reason": why}
        tx.event("notification.disabled", at, actor=actor, data=json.dumps(data))


def enable_notification(tx: Transaction, notification_id: str | None, at: float, actor: str) -> None:
    """Send to a receiver that is disabled again: what waits for it, and what happens after this."""
    tx.execute(SQL["enable_notification"], (tx.seq, notification_id))
    if tx.cursor.rowcount:
        tx.event(ENABLED, at, actor=actor, data=json.dumps({"notification_id": notification_id}))


def give_receiver_up(
    tx: Transaction,
    claimed: ClaimedDispatch,
    at: float,
    why: str,
    *,
    status: int | None,
    error: str,
    body: str | None,
) -> None:
    """Disable a receiver that wants no message any more: not this one, and none of those that wait for it."""
    give_sending_up(tx, claimed, at, status=status, error=error, body=body)
    disable_notification(tx, claimed.notification_id, at, why)
    tx.execute(SQL["give_up_dispatches"], (why, at, claimed.notification_id))


def record_test(tx: Transaction, notification_id: str, at: float, actor: str) -> None:
    """Somebody asks for a test message."""
    tx.event("notification.tested", at, actor=actor, data=json.dumps({"notification_id": notification_id}))


def revive_dispatch(tx: Transaction, dispatch_id: str, notification_id: str | None, at: float, actor: str) -> None:
    """Send a message that waits or was given up now, with all its tries, also to a receiver that was disabled. Raises
    Refused where it is being sent or was sent."""
    tx.execute(SQL["revive_dispatch"], (at, dispatch_id))
    if not tx.cursor.rowcount:
        raise Refused(f"dispatch {dispatch_id} neither waits nor was given up")
    enable_notification(tx, notification_id, at, actor)
    _enter(tx, QUEUED, at, notification_id, dispatch_id, actor=actor)


def prune_dispatches(tx: Transaction, *, ended_before: float, up_to: int) -> int:
    """Delete up to a batch of messages that were sent or given up, before a time or up to a place; answers how many."""
    return len(tx.rows(SQL["delete_old_dispatches"], (ended_before, up_to, BATCH)))
