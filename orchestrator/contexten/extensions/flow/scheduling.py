"""Changing the strategy or the limit: remembered in the database, journaled, and applied to the queue in one change."""

from __future__ import annotations

import json
from functools import partial

from .errors import InvalidArguments, Issue, NotAvailableYet
from .store import Store, Transaction
from .store.sql import SQL
from .strategies import Strategy, strategy_named

MAX_CONCURRENT = 100_000


async def change_strategy(
    store: Store,
    *,
    current: Strategy,
    limit: int,
    strategy: str | None,
    max_concurrent_flows: object,
    dry_run: bool,
    aging_interval_s: float,
    at: float,
    actor: str,
) -> tuple[Strategy, int, str]:
    """Answers the strategy and the limit from now on, and what the change means for the queue.

    Raises InvalidArguments, NotAvailableYet.
    """
    if dry_run:
        raise NotAvailableYet(
            "dry_run is not available in this version.", next="Call set_strategy without it; it can be set back."
        )
    if strategy is None and max_concurrent_flows is None:
        raise InvalidArguments(
            "set_strategy takes a strategy, max_concurrent_flows, or both.", next="Call get_metrics() for both now."
        )
    chosen = current if strategy is None else strategy_named(strategy, aging_interval_s=aging_interval_s)
    if max_concurrent_flows is not None and (
        isinstance(max_concurrent_flows, bool)
        or not isinstance(max_concurrent_flows, int)
        or not 1 <= max_concurrent_flows <= MAX_CONCURRENT
    ):
        raise InvalidArguments(
            f"max_concurrent_flows must be a whole number from 1 to {MAX_CONCURRENT}.",
            issues=[
                Issue(
                    path="/max_concurrent_flows",
                    code="out_of_range",
                    message=f"1 to {MAX_CONCURRENT}",
                    got=str(max_concurrent_flows)[:100],
                )
            ],
        )
    new_limit = max_concurrent_flows if isinstance(max_concurrent_flows, int) else limit
    reordered = chosen.name != current.name
    change = partial(
        _change,
        chosen=None if strategy is None else chosen,
        is_new=reordered,
        limit=None if max_concurrent_flows is None else new_limit,
        at=at,
        actor=actor,
    )
    queued = await store.write(change)
    effect = f"{queued} queued runs"
    effect += f" are now ordered by {chosen.name}" if reordered else f" stay ordered by {chosen.name}"
    if new_limit != limit:
        effect += f"; up to {new_limit} runs hold a slot (before: {limit})"
        if new_limit < limit:
            effect += "; runs under way keep theirs"
    return chosen, new_limit, effect + "."


def requeue(tx: Transaction, strategy: Strategy) -> None:
    """Give every run that is not over the key of a strategy, and remember whose keys they are."""
    keys = [
        (strategy.key(enqueued_at=created_at, priority=priority), run_id)
        for run_id, priority, created_at in tx.rows(SQL["requeue_all"])
    ]
    tx.cursor.executemany(SQL["set_queue_key"], keys)
    tx.execute(SQL["put_setting"], ("queue_keys", strategy.name))


def _change(tx: Transaction, *, chosen: Strategy | None, is_new: bool, limit: int | None, at: float, actor: str) -> int:
    data: dict[str, object] = {}
    if chosen is not None:
        if is_new:
            requeue(tx, chosen)
        tx.execute(SQL["put_setting"], ("strategy", chosen.name))
        data["strategy"] = chosen.name
    if limit is not None:
        tx.execute(SQL["put_setting"], ("max_concurrent_flows", str(limit)))
        data["max_concurrent_flows"] = limit
    tx.event("scheduler.changed", at, actor=actor, data=json.dumps(data))
    return int(tx.row(SQL["count_queued"])[0])
