"""Changes of triggers: making and changing them, accepting deliveries, and recording what became of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import DeliveryNotFound, IllegalMove, TooManyDeliveries, TriggerNotFound
from .consumers import begin, end
from .notifications import hear_no_more, hear_of_runs
from .sql import SQL
from .writer import Stale, Transaction

CONSUMER = "triggers"
"""Who hears of the ends of runs, while there is a trigger for them."""

BATCH = 200  # triggers, schedules or deliveries a transaction: they must not hold up those that work


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRow:
    """A trigger to save. What is JSON is text."""

    trigger_id: str
    name: str
    kind: str
    config: str
    flow_id: str | None
    handler: str | None
    inputs: str | None
    filter: str | None
    secret: str | None
    enabled: bool
    next_at: float | None
    at: float
    actor: str
    is_bounded: bool
    """How many of its runs are under way counts."""
    before: float | None = None
    """Of a change: when the trigger that it was made from was saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """An event to record for a trigger."""

    trigger_id: str
    delivery_id: str
    event_id: str
    type: str
    payload: str
    at: float
    max_pending: int
    actor: str | None = None
    """Who delivers it, where that is not the sender itself."""
    same_ids: tuple[str, str] | None = None
    """The first and the last of the ids that make it known, where not its own one alone does."""


class Accepted(NamedTuple):
    """What became of an event that was delivered."""

    delivery_id: str
    is_new: bool
    """False: it had been delivered before, and nothing was recorded."""


class Waiting(NamedTuple):
    """A trigger with the deliveries of it that are to start next. What is JSON is text."""

    trigger_id: str
    kind: str
    config: str
    flow_id: str | None
    handler: str | None
    inputs: str | None
    filter: str | None
    full_at: float
    delivery_ids: tuple[str, ...]


class WaitingDelivery(NamedTuple):
    """A delivery that waits. `payload` is JSON text."""

    delivery_id: str
    event_id: str
    type: str
    payload: str
    round: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a delivery. `state` is one of `started`, `filtered` and `failed`."""

    trigger_id: str
    delivery_id: str
    round: int
    state: str
    at: float
    flow_id: str | None = None
    run_id: str | None = None
    reason: str | None = None
    error: str | None = None
    """JSON text."""
    is_active: bool = False
    """Whether its run counts as under way until it is seen to have ended."""
    full_at: float | None = None
    """When the bucket of the trigger's rate is full again."""


# Triggers
def create(tx: Transaction, row: TriggerRow) -> None:
    """Save a new trigger. Its id must be free."""
    tx.execute(
        SQL["insert_trigger"],
        (
            row.trigger_id,
            row.name,
            row.kind,
            row.config,
            row.flow_id,
            row.handler,
            row.inputs,
            row.filter,
            row.secret,
            int(row.enabled),
            row.next_at,
            row.at,
            row.at,
        ),
    )
    if row.kind == "flow":
        begin(tx, CONSUMER, row.at)
    if row.kind == "slack":
        hear_of_runs(tx, row.at)
    _enter(tx, "trigger.created", row.at, row.trigger_id, row.flow_id, actor=row.actor, kind=row.kind, name=row.name)


def update(tx: Transaction, row: TriggerRow) -> None:
    """Save a trigger's changes. Raises TriggerNotFound, Stale where it was changed meanwhile."""
    changed = (row.name, row.config, row.inputs, row.filter, int(row.enabled), row.next_at, row.at)
    if not tx.execute(SQL["update_trigger"], (*changed, row.trigger_id, row.before)).rowcount:
        if tx.row(SQL["trigger_for_delivery"], (row.trigger_id,)) is None:
            raise no_trigger(row.trigger_id)
        raise Stale
    if row.is_bounded:
        tx.execute(SQL["remember_active_runs"], (row.trigger_id,))
    _enter(tx, "trigger.updated", row.at, row.trigger_id, row.flow_id, actor=row.actor, enabled=row.enabled)


def clear(tx: Transaction, trigger_id: str) -> bool:
    """Delete up to a batch of a trigger's deliveries that are done with; answers whether there may be more."""
    return tx.execute(SQL["clear_deliveries"], (trigger_id, BATCH)).rowcount == BATCH


def delete(tx: Transaction, trigger_id: str, at: float, actor: str) -> None:
    """Delete a trigger with the record of its deliveries; runs that it started go on. Raises TriggerNotFound."""
    row = tx.row(SQL["trigger_for_delivery"], (trigger_id,))
    if row is None:
        raise no_trigger(trigger_id)
    tx.execute(SQL["delete_deliveries"], (trigger_id,))
    tx.execute(SQL["delete_trigger"], (trigger_id,))
    if tx.row(SQL["any_flow_trigger"]) is None:
        end(tx, CONSUMER)
    hear_no_more(tx)
    _enter(tx, "trigger.deleted", at, trigger_id, row[0], actor=actor)


def no_trigger(trigger_id: str) -> TriggerNotFound:
    """The error for a trigger that is not there."""
    return TriggerNotFound(
        f"There is no trigger {trigger_id[:128]!r}.", next="Call list_triggers() to see the triggers."
    )


# Deliveries
def accept(tx: Transaction, new: NewDelivery) -> Accepted:
    """Record an event once. Raises TriggerNotFound, TooManyDeliveries."""
    ids = new.same_ids or (new.event_id, new.event_id)
    known = tx.row(SQL["delivery_of_event"], (new.trigger_id, *ids))
    if known is not None:
        return Accepted(known[0], is_new=False)
    trigger = tx.row(SQL["trigger_for_delivery"], (new.trigger_id,))
    if trigger is None:
        raise no_trigger(new.trigger_id)
    if tx.row(SQL["count_waiting"], (new.trigger_id, new.max_pending))[0] >= new.max_pending:
        raise TooManyDeliveries(
            f"{new.max_pending} deliveries of the trigger {new.trigger_id} wait already; this one was not recorded.",
            next="Send it again later.",
        )
    values = (new.delivery_id, new.trigger_id, new.event_id, new.type, new.payload, new.at)
    tx.execute(SQL["insert_delivery"], values)
    _enter(
        tx,
        "trigger.delivered",
        new.at,
        new.trigger_id,
        trigger[0],
        actor=new.actor,
        delivery_id=new.delivery_id,
        event_id=new.event_id,
        event_type=new.type,
    )
    return Accepted(new.delivery_id, is_new=True)


def fire(
    tx: Transaction,
    trigger_id: str,
    *,
    planned: float,
    next_at: float | None,
    ticks: Sequence[NewDelivery],
    missed: int,
    at: float,
) -> bool:
    """Move a schedule past its planned time and record its ticks; answers False where another server did, or where it
    was changed meanwhile. Ticks that find too many waiting count as missed."""
    if not tx.execute(SQL["move_trigger"], (next_at, trigger_id, planned)).rowcount:
        return False
    for tick in ticks:
        try:
            accept(tx, tick)
        except TooManyDeliveries:
            missed += 1
    if missed:
        miss(tx, trigger_id, at, missed)
    return True


def miss(tx: Transaction, trigger_id: str, at: float, missed: int) -> None:
    """Enter in the journal that events of a trigger are not made up for."""
    flow_id = tx.row(SQL["trigger_for_delivery"], (trigger_id,))[0]
    _enter(tx, "trigger.missed", at, trigger_id, flow_id, missed=missed)


def redeliver(tx: Transaction, delivery_id: str, at: float, actor: str) -> None:
    """Let a delivery be started anew; nothing changes where it waits already. Raises DeliveryNotFound, IllegalMove
    where its run is under way and counts."""
    row = tx.row(SQL["delivery_to_repeat"], (delivery_id,))
    if row is None:
        raise no_delivery(delivery_id)
    trigger_id, run_id, flow_id, is_under_way = row
    if is_under_way:
        raise IllegalMove(
            f"The run {run_id}, which the delivery started, has not ended, and its trigger bounds its runs.",
            next="Wait for the run's end, or cancel it; then deliver the event again.",
        )
    if tx.execute(SQL["deliver_again"], (delivery_id,)).rowcount:
        more = {"run_id": run_id} if run_id else {}
        _enter(tx, "trigger.redelivered", at, trigger_id, flow_id, actor=actor, delivery_id=delivery_id, **more)


def no_delivery(delivery_id: str) -> DeliveryNotFound:
    """The error for a delivery that is not there."""
    return DeliveryNotFound(
        f"There is no delivery {delivery_id[:128]!r}; those that are done with are pruned in time.",
        next="Look at the trigger's latest deliveries.",
    )


# Starting them
def take(tx: Transaction, server_id: str, handlers: Sequence[str]) -> list[tuple[str, str | None]]:
    """Take the triggers whose deliveries no living server starts, up to a batch; answers the id and the flow of each.
    None where this process's lease has lapsed."""
    if not tx.may_own(server_id):
        return []
    free = tx.rows(SQL["free_triggers"], (json.dumps(handlers), BATCH))
    return [(name, flow) for name, flow in free if tx.execute(SQL["take_trigger"], (server_id, name)).rowcount]


def tell_handlers(tx: Transaction, server_id: str, handlers: Sequence[str]) -> None:
    """Let all know which handlers a server has, for as long as it is one."""
    tx.execute(SQL["tell_handlers"], (json.dumps(handlers), server_id))


def next_deliveries(tx: Transaction, trigger_id: str, server_id: str, *, limit: int, at: float) -> Waiting | None:
    """The first deliveries that wait, with their trigger. Where there are none, or the trigger is this server's no
    more, the trigger is left."""
    trigger = tx.row(SQL["started_trigger"], (trigger_id, server_id)) if tx.may_own(server_id) else None
    if trigger is not None:
        rows = tx.rows(SQL["next_deliveries"], (trigger_id, limit))
        if rows:
            return Waiting._make((*trigger, tuple(delivery_id for (delivery_id,) in rows)))
    leave(tx, trigger_id, server_id, at)
    return None


def leave(tx: Transaction, trigger_id: str, server_id: str, at: float) -> None:
    """Let any server start the trigger's deliveries; where some wait, all servers hear of it."""
    if tx.execute(SQL["leave_trigger"], (trigger_id, server_id)).rowcount:
        waiting = tx.row(SQL["left_waiting"], (trigger_id,))
        if waiting is not None:
            _enter(tx, "trigger.released", at, trigger_id, waiting[0])


def settle(tx: Transaction, settled: Settled, server_id: str) -> None:
    """Record what became of a delivery. Nothing is recorded where the trigger is this server's
    no more, or the delivery was settled or deleted."""
    values = (
        settled.state,
        settled.run_id,
        settled.reason,
        settled.error,
        int(settled.is_active),
        settled.at,
        settled.delivery_id,
        settled.round,
        server_id,
    )
    if tx.may_own(server_id) and tx.execute(SQL["settle_delivery"], values).rowcount:
        tx.execute(SQL["forget_ended_runs"], (settled.trigger_id,))
        if settled.full_at is not None:
            tx.execute(SQL["fill_bucket"], (settled.full_at, settled.trigger_id))
        data = {"delivery_id": settled.delivery_id, "run_id": settled.run_id, "reason": settled.reason}
        if settled.error is not None:
            data["error"] = json.loads(settled.error)
        told = {key: value for key, value in data.items() if value is not None}
        _enter(tx, f"trigger.{settled.state}", settled.at, settled.trigger_id, settled.flow_id, **told)


def prune_deliveries(tx: Transaction, *, ended_before: float, up_to: int) -> int:
    """Delete up to a batch of deliveries that were done with, before a time or up to a place; answers how many."""
    return tx.execute(SQL["prune_deliveries"], (ended_before, up_to, BATCH)).rowcount


def _enter(
    tx: Transaction,
    entry: str,
    at: float,
    trigger_id: str,
    flow_id: str | None,
    *,
    actor: str | None = None,
    **data: Any,
) -> None:
    text = json.dumps({"trigger_id": trigger_id, **data}, ensure_ascii=False)
    tx.event(entry, at, flow_id=flow_id, actor=actor, data=text)
