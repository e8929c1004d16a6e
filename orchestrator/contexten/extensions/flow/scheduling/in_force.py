"""Changing the strategy or the limit: remembered in the database, journaled, and applied to the queue in one change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ..agents.staff import Staff
from ..clock import Clock
from ..definition import Plan
from ..errors import InvalidArguments, Issue
from ..settings import FlowSettings
from ..store import Store, Transaction
from ..store.queue import put_limits, queued
from ..store.servers import drivers_of
from ..store.sql import SQL
from ..strategies import AgentLoad, Strategy, least_loaded, strategy_named
from ..views import StrategyChange, StrategyState
from .demands import Demands, check_pools

MAX_CONCURRENT = 100_000


class InForce(NamedTuple):
    """What all servers of a database go by."""

    strategy: str
    max_concurrent_flows: int
    aging_interval_s: float

    @property
    def keys(self) -> str:
        """Names the order that keys of the queue make; keys of different ones must not mix."""
        return f"{self.strategy}/{self.aging_interval_s}"


class Changed(NamedTuple):
    """What a change of the strategy or the limit did."""

    before: InForce
    after: InForce
    queued: int


class Scheduling:
    """The strategy and the limit of one database, as this process knows them."""

    def __init__(self, store: Store, settings: FlowSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._adopt(self._holding({}, is_shared=False))
        self.balances_load = False
        """Whether tasks go to the least loaded able agent under every strategy."""
        self._pools: dict[str, float] = {}
        self._demands = Demands()
        self._learning = asyncio.Lock()  # else what was read before a change could be learnt after it

    def _named(self, name: object, aging_interval_s: float | None = None) -> Strategy:
        return strategy_named(name, aging_interval_s=aging_interval_s or self._settings.aging_interval_s)

    def _adopt(self, in_force: InForce) -> None:
        self.strategy: Strategy = self._named(in_force.strategy, in_force.aging_interval_s)
        self.max_concurrent_flows = in_force.max_concurrent_flows
        self.keys = in_force.keys
        """Whose keys the strategy gives."""

    def _holding(self, remembered: Mapping[str, str], *, is_shared: bool) -> InForce:
        """What holds for the database: while a server lives, what is in force; else what was chosen by set_strategy,
        and then the settings."""
        if is_shared and "in_force" in remembered:
            return InForce(**json.loads(remembered["in_force"]))
        return InForce(
            strategy=self._named(remembered.get("strategy", self._settings.strategy)).name,
            max_concurrent_flows=int(remembered.get("max_concurrent_flows", self._settings.max_concurrent_flows)),
            aging_interval_s=self._settings.aging_interval_s,
        )

    def _is_shared(self) -> bool:
        return bool(drivers_of(self._store.path))

    @property
    def state(self) -> StrategyState:
        """Both, as set_strategy shows them."""
        return StrategyState(strategy=self.strategy.name, max_concurrent_flows=self.max_concurrent_flows)

    async def recall(self) -> None:
        """Learn what holds for the database. Raises StoreError."""
        async with self._learning:
            remembered = {row["key"]: row["value"] for row in await self._store.rows(SQL["scheduling_settings"])}
            self._adopt(self._holding(remembered, is_shared=self._is_shared()))
        self._pools = {
            row["name"]: row["size"] for row in await self._store.rows(SQL["read_limits"]) if row["kind"] == "pool"
        }

    def place(self, agents: Sequence[AgentLoad]) -> int | None:
        """Which of several able agents takes a task: as the strategy says, or the least loaded one where that is
        asked for."""
        return least_loaded(agents) if self.balances_load else self.strategy.place(agents)

    def demands(self, plan: Plan, staff: Staff) -> dict[str, float]:
        """What a run of the plan holds of each pool; of agents' places too, where the strategy counts them.

        Raises InvalidArguments where a pool is not declared or too small."""
        pools, agents = self._demands.of(plan, staff)
        check_pools(pools, self._pools)
        return {**pools, **agents} if self.strategy.look_ahead else {**pools}

    async def settle_limits(self) -> None:
        """Record the limits that the settings name; what else is there stays. Raises StoreError."""
        named = {"pool": self._settings.pools, "flow": self._settings.flow_limits, "tag": self._settings.tag_limits}
        if any(named.values()):
            await self._store.write(partial(_put_limits, named=named, at=self._clock.timestamp()))
            await self.recall()

    async def settle(self) -> None:
        """Put in force what holds for the database, and give the queue its keys. Raises StoreError."""
        async with self._learning:
            change = partial(self._settle, is_shared=self._is_shared(), at=self._clock.timestamp())
            self._adopt(await self._store.write(change))

    def _settle(self, tx: Transaction, *, is_shared: bool, at: float) -> InForce:
        remembered = dict(tx.rows(SQL["scheduling_settings"]))
        holding = self._holding(remembered, is_shared=is_shared)
        is_news = self._put_in_force(tx, holding, remembered)
        if is_news and "in_force" in remembered:  # others may go by that
            data = {"strategy": holding.strategy, "max_concurrent_flows": holding.max_concurrent_flows}
            tx.event("scheduler.changed", at, data=json.dumps(data))
        return holding

    def _put_in_force(self, tx: Transaction, in_force: InForce, remembered: Mapping[str, str]) -> bool:
        """Answers whether something else was in force."""
        if remembered.get("queue_keys") != in_force.keys:
            requeue(tx, self._named(in_force.strategy, in_force.aging_interval_s))
            tx.execute(SQL["put_setting"], ("queue_keys", in_force.keys))
        text = json.dumps(in_force._asdict())
        if remembered.get("in_force") == text:
            return False
        tx.execute(SQL["put_setting"], ("in_force", text))
        return True

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
        chosen: dict[str, str | int] = {}
        if strategy is not None:
            chosen["strategy"] = self._named(strategy).name
        if max_concurrent_flows is not None:
            chosen["max_concurrent_flows"] = check_limit(max_concurrent_flows)
        is_shared, at = self._is_shared(), self._clock.timestamp()
        change = partial(self._change, chosen=chosen, is_shared=is_shared, at=at, actor=actor)
        async with self._learning:
            before, after, queued = await self._store.write(change)
            self._adopt(after)
        old = StrategyState(strategy=before.strategy, max_concurrent_flows=before.max_concurrent_flows)
        return StrategyChange(before=old, after=self.state, effect=_effect(old, self.state, queued))

    def _change(
        self, tx: Transaction, *, chosen: Mapping[str, str | int], is_shared: bool, at: float, actor: str
    ) -> Changed:
        remembered = dict(tx.rows(SQL["scheduling_settings"]))
        before = self._holding(remembered, is_shared=is_shared)
        after = InForce(**{**before._asdict(), **chosen})
        self._put_in_force(tx, after, remembered)
        for key, value in chosen.items():
            tx.execute(SQL["put_setting"], (key, str(value)))
        tx.event("scheduler.changed", at, actor=actor, data=json.dumps(chosen))
        return Changed(before, after, int(tx.row(SQL["count_queued"])[0]))


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
    """Give every run that is not over the key of a strategy."""
    keys = [(strategy.key(queued(row)), row[0]) for row in tx.rows(SQL["requeue_all"])]
    tx.cursor.executemany(SQL["set_queue_key"], keys)


def _put_limits(tx: Transaction, named: Mapping[str, Mapping[str, float]], at: float) -> None:
    known = {(kind, name): size for kind, name, size in tx.rows(SQL["read_limits"])}
    changed: dict[str, dict[str, float]] = {}
    for kind, sizes in named.items():
        news = {name: size for name, size in sizes.items() if size != known.get((kind, name), 0)}
        if news:
            put_limits(tx, kind, news)
            changed[kind] = news
    if changed:
        tx.event("scheduler.changed", at, data=json.dumps({"limits": changed}))
