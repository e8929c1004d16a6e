"""Changing the strategy or the limit: remembered in the database, journaled, and applied to the queue in one change."""

from __future__ import annotations

import json
from functools import partial

from .clock import Clock
from .errors import InvalidArguments, Issue, NotAvailableYet
from .settings import FlowSettings
from .store import Store, Transaction
from .store.sql import SQL
from .strategies import Strategy, strategy_named
from .views import StrategyChange, StrategyState

MAX_CONCURRENT = 100_000


class Scheduling:
    """The strategy and the limit of one database, as this process knows them."""

    def __init__(self, store: Store, settings: FlowSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self.strategy: Strategy = self._named("fifo")
        self.max_concurrent_flows = settings.max_concurrent_flows

    def _named(self, name: object) -> Strategy:
        return strategy_named(name, aging_interval_s=self._settings.aging_interval_s)

    @property
    def state(self) -> StrategyState:
        """Both, as set_strategy shows them."""
        return StrategyState(strategy=self.strategy.name, max_concurrent_flows=self.max_concurrent_flows)

    async def recall(self) -> None:
        """What the database remembers goes before the settings. Raises StoreError."""
        strategy = await self._store.row(SQL["setting"], ("strategy",))
        limit = await self._store.row(SQL["setting"], ("max_concurrent_flows",))
        self.strategy = self._named(strategy[0] if strategy else self._settings.strategy)
        self.max_concurrent_flows = int(limit[0]) if limit else self._settings.max_concurrent_flows

    async def settle_queue(self) -> None:
        """Give the queue the strategy's keys, where it has another's."""
        keys = await self._store.row(SQL["setting"], ("queue_keys",))
        if keys is None or keys[0] != self.strategy.name:
            await self._store.write(partial(requeue, strategy=self.strategy))

    async def change(
        self, strategy: object, *, max_concurrent_flows: object, dry_run: bool, actor: str
    ) -> StrategyChange:
        """Change either or both. Raises InvalidArguments, NotAvailableYet."""
        if dry_run:
            raise NotAvailableYet(
                "dry_run is not available in this version.", next="Call set_strategy without it; it can be set back."
            )
        if strategy is None and max_concurrent_flows is None:
            raise InvalidArguments(
                "set_strategy takes a strategy, max_concurrent_flows, or both.", next="Call get_metrics() for both now."
            )
        before = self.state
        chosen = self.strategy if strategy is None else self._named(strategy)
        limit = self.max_concurrent_flows if max_concurrent_flows is None else check_limit(max_concurrent_flows)
        change = partial(
            _change,
            chosen=None if strategy is None else chosen,
            is_new=chosen.name != before.strategy,
            limit=None if max_concurrent_flows is None else limit,
            at=self._clock.timestamp(),
            actor=actor,
        )
        queued = await self._store.write(change)
        self.strategy, self.max_concurrent_flows = chosen, limit
        return StrategyChange(before=before, after=self.state, effect=_effect(before, self.state, queued))


def check_limit(value: object) -> int:
    """The limit, if it is one. Raises InvalidArguments."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_CONCURRENT:
        return value
    raise InvalidArguments(
        f"max_concurrent_flows must be a whole number from 1 to {MAX_CONCURRENT}.",
        issues=[
            Issue(
                path="/max_concurrent_flows",
                code="out_of_range",
                message=f"1 to {MAX_CONCURRENT}",
                got=str(value)[:100],
            )
        ],
    )


def _effect(before: StrategyState, after: StrategyState, queued: int) -> str:
    order = "are now ordered by" if after.strategy != before.strategy else "stay ordered by"
    effect = f"{queued} queued runs {order} {after.strategy}"
    new, old = after.max_concurrent_flows, before.max_concurrent_flows
    if new != old:
        effect += f"; up to {new} runs hold a slot (before: {old})"
    if new < old:
        effect += "; runs under way keep theirs"
    return f"{effect}."


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
