"""Changing the strategy or the limit: remembered in the database, journaled, and applied to the queue in one change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from .agents.registry import AgentRegistry
from .clock import Clock
from .definition import Plan
from .demands import agent_demands, check_pools, pool_demands
from .errors import InvalidArguments, Issue
from .settings import FlowSettings
from .store import Store, Transaction
from .store.queue import put_limits, queued
from .store.sql import SQL
from .strategies import AgentLoad, Strategy, least_loaded, strategy_named
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
        self.balances_load = False
        """Whether tasks go to the least loaded able agent under every strategy."""
        self._pools: dict[str, float] = {}

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

        self._pools = {
            row["name"]: row["size"] for row in await self._store.rows(SQL["read_limits"]) if row["kind"] == "pool"
        }

    def place(self, agents: Sequence[AgentLoad]) -> int | None:
        """Which of several able agents takes a task: as the strategy says, or the least loaded one where that is
        asked for."""
        return least_loaded(agents) if self.balances_load else self.strategy.place(agents)

    def demands(self, plan: Plan, registry: AgentRegistry) -> dict[str, float]:
        """What a run of the plan holds of each pool; of agents' places too, where the strategy counts them.

        Raises InvalidArguments where a pool is not declared or too small."""
        demands = pool_demands(plan)
        if demands:
            check_pools(demands, self._pools)
        return {**demands, **agent_demands(plan, registry)} if self.strategy.look_ahead else demands

    async def settle_limits(self) -> None:
        """Record the limits that the settings name; what is there already stays. Raises StoreError."""
        named = {"pool": self._settings.pools, "flow": self._settings.flow_limits, "tag": self._settings.tag_limits}
        if any(named.values()):
            await self._store.write(partial(_put_limits, named=named))
            await self.recall()

    async def settle_queue(self) -> None:
        """Give the queue the strategy's keys, where it has another's."""
        keys = await self._store.row(SQL["setting"], ("queue_keys",))
        if keys is None or keys[0] != self.strategy.name:
            await self._store.write(partial(requeue, strategy=self.strategy))

    def proposed(self, strategy: object, max_concurrent_flows: object) -> tuple[Strategy, int]:
        """The strategy and the limit as they would be. Raises InvalidArguments."""
        return (
            self.strategy if strategy is None else self._named(strategy),
            self.max_concurrent_flows if max_concurrent_flows is None else check_limit(max_concurrent_flows),
        )

    @property
    def pools(self) -> Mapping[str, float]:
        """The database's resource pools and their sizes."""
        return self._pools

    async def change(self, strategy: object, *, max_concurrent_flows: object, actor: str) -> StrategyChange:
        """Change either or both. Raises InvalidArguments."""
        if strategy is None and max_concurrent_flows is None:
            raise InvalidArguments(
                "set_strategy takes a strategy, max_concurrent_flows, or both.", next="Call get_metrics() for both now."
            )
        before = self.state
        chosen, limit = self.proposed(strategy, max_concurrent_flows)
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
    keys = [(strategy.key(queued(row)), row[0]) for row in tx.rows(SQL["requeue_all"])]
    tx.cursor.executemany(SQL["set_queue_key"], keys)
    tx.execute(SQL["put_setting"], ("queue_keys", strategy.name))


def _put_limits(tx: Transaction, named: Mapping[str, Mapping[str, float]]) -> None:
    for kind, sizes in named.items():
        put_limits(tx, kind, sizes)


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
