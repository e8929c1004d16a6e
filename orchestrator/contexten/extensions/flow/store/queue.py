"""The queue of the database: which runs are ready, which limits keep others back, and which start now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..strategies import QueuedRun, RunningRun, Situation, Strategy
from .claims import claim_one, load_claimed
from .dependencies import settle
from .records import ClaimedRun
from .sql import SQL
from .writer import Transaction

ROUNDS = 5  # of reading on, twice as far each, behind runs that a limit keeps back; the rest is for the next change


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the queue is served: by which order, into how many slots, onto what agents."""

    strategy: Strategy
    max_concurrent_flows: int
    agents: Mapping[str, float] = field(default_factory=dict)
    """Places of this process's agents, by `agent:NAME`."""
    load: float | None = None
    """The machine's load, 0 to 1; None where it is not known."""


class Claimed(NamedTuple):
    """What a look at the queue gave."""

    runs: list[ClaimedRun]
    has_more: bool
    """Ready runs may be left that another look could start."""
    has_blocked: bool
    """Some runs wait for a dependency or a limit, or did not fit: look again when a run ends."""


def claim(tx: Transaction, owner: str, at: float, *, limit: int, rules: Rules) -> Claimed:
    """Take the runs that start now, `limit` at most: at most one index step each, however long the queue is."""
    has_unsettled = settle(tx, at)
    limits = Limits(tx)
    freed = limits.free(tx)
    room = min(rules.max_concurrent_flows - tx.row(SQL["count_slots"])[0], limit)
    if room <= 0 or not tx.may_own(owner):
        has_queued = tx.row(SQL["queue_head"], (1,)) is not None  # the slots may be other servers'
        return Claimed([], False, has_queued or _has_blocked(tx))
    capacity = {**limits.pools, **rules.agents}
    queue, kept_back = _ready(tx, limits, room + rules.strategy.look_ahead, capacity)
    situation = Situation(
        now=at,
        free_slots=room,
        running=_running(tx, capacity, owner) if rules.load is not None or any(run.demands for run in queue) else [],
        capacity=capacity,
        load=rules.load,
    )
    chosen = rules.strategy.admit(queue, situation)[:room]
    claimed = []
    for run in chosen:
        flow_id = tx.row(SQL["run_flow"], (run.run_id,))[0]
        claim_one(tx, run.run_id, flow_id, owner, at)
        claimed.append(load_claimed(tx, run.run_id, owner, at))
    is_cut = len(queue) < room and kept_back > freed  # more than freed: else the same ones could turn for ever
    has_more = has_unsettled or is_cut or (len(chosen) == room and len(queue) >= room)
    return Claimed(claimed, has_more, len(chosen) < min(room, len(queue)) or _has_blocked(tx))


def _has_blocked(tx: Transaction) -> bool:
    return tx.row(SQL["any_blocked"]) is not None


def _ready(tx: Transaction, limits: Limits, wanted: int, capacity: Mapping[str, float]) -> tuple[list[QueuedRun], int]:
    """The head of the queue, less what limits keep back: that leaves the ready index until it may start.

    Also how many were kept back, where there may be others behind them; else 0."""
    ready: list[QueuedRun] = []
    kept_back, window = 0, wanted
    for _ in range(ROUNDS):
        rows = tx.rows(SQL["queue_window"], (window,))
        ready = []
        limits.begin()
        for row in rows:
            obstacle = limits.take(tx, row[1])
            if obstacle is None:
                ready.append(queued(row, capacity))
                if len(ready) == wanted:
                    return ready, 0
            else:
                tx.execute(SQL["block_run"], (obstacle, row[0]))
                kept_back += 1
        if len(rows) < window:
            return ready, 0
        window *= 2
    return ready, kept_back


def queued(row: Sequence[Any], capacity: Mapping[str, float] | None = None) -> QueuedRun:
    """A row of the queue as strategies see it; where a `capacity` is given, of its demands those that are in it."""
    run_id, _, seq, enqueued_at, priority, deadline, estimate_s, demands, _ = row
    held: dict[str, float] = json.loads(demands) if demands else {}
    if capacity is not None:
        held = {name: amount for name, amount in held.items() if name in capacity}
    return QueuedRun(
        run_id=run_id,
        seq=seq,
        enqueued_at=enqueued_at,
        priority=priority,
        deadline=deadline,
        estimate_s=estimate_s,
        demands=held,
    )


def held_by(owner: str | None, demands: str | None, mine: str | None) -> dict[str, float]:
    """What a running run of `owner` holds: of agents' places only those of `mine`, for each server has its own."""
    held: dict[str, float] = json.loads(demands) if demands else {}
    if owner == mine:
        return held
    return {name: amount for name, amount in held.items() if not name.startswith("agent:")}


def _running(tx: Transaction, capacity: Mapping[str, float], mine: str) -> list[RunningRun]:
    running = []
    for run_id, started_at, estimate_s, demands, owner in tx.rows(SQL["slot_holders"]):
        held = held_by(owner, demands, mine)
        running.append(
            RunningRun(
                run_id=run_id,
                demands={name: amount for name, amount in held.items() if name in capacity},
                expected_end=None if estimate_s is None else started_at + estimate_s,
            )
        )
    return running


class Limits:
    """The database's limits, and how much of each is in use; for one change."""

    def __init__(self, tx: Transaction) -> None:
        self.pools: dict[str, float] = {}
        self._flows: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        for kind, name, size in tx.rows(SQL["read_limits"]):
            if kind == "pool":
                self.pools[name] = size
            else:
                (self._flows if kind == "flow" else self._tags)[name] = int(size)
        self._used: dict[str, int] = {}
        self._planned: dict[str, int] = {}

    def begin(self) -> None:
        """Forget what was taken since."""
        self._planned.clear()

    def take(self, tx: Transaction, flow_id: str) -> str | None:
        """Count one more run of a flow; answers the limit that forbids it, where one does."""
        if not self._flows and not self._tags:
            return None
        keys = [f"flow:{flow_id}"] if flow_id in self._flows else []
        if self._tags:
            keys += [f"tag:{tag}" for (tag,) in tx.rows(SQL["flow_tags"], (flow_id,)) if tag in self._tags]
        for key in keys:
            if self._in_use(tx, key) + self._planned.get(key, 0) >= self._size(key):
                return key
        for key in keys:
            self._planned[key] = self._planned.get(key, 0) + 1
        return None

    def free(self, tx: Transaction) -> int:
        """Let the first of those that a limit kept back be ready again, as many as it has room for; answers how
        many."""
        freed = 0
        for (key,) in tx.rows(SQL["blocking_limits"]):
            room = self._size(key) - self._in_use(tx, key)
            if room > 0:
                tx.execute(SQL["unblock_first"], (key, min(room, 1 << 31)))
                freed += tx.cursor.rowcount
        return freed

    def _size(self, key: str) -> float:
        kind, _, name = key.partition(":")
        return (self._flows if kind == "flow" else self._tags).get(name, float("inf"))

    def _in_use(self, tx: Transaction, key: str) -> int:
        if key not in self._used:
            kind, _, name = key.partition(":")
            self._used[key] = tx.row(SQL["flow_slots" if kind == "flow" else "tag_slots"], (name,))[0]
        return self._used[key]


def put_limits(tx: Transaction, kind: str, sizes: Mapping[str, float]) -> None:
    """Set limits of a kind (pool, flow or tag) by name; a size of 0 takes the limit away."""
    for name, size in sizes.items():
        if size > 0:
            tx.execute(SQL["put_limit"], (kind, name, size))
        else:
            tx.execute(SQL["drop_limit"], (kind, name))
