"""Why a queued run does not start: the exact constraint, who holds what it needs, and its place."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from ..agents.registry import AgentRegistry
from ..answers.reading import Answers
from ..scheduling.in_force import Scheduling
from ..store import Store
from ..store.queue import held_by
from ..store.sql import SQL
from ..strategies.resource_aware import MAX_LOAD
from ..views import QueuedView, QueueView

NAMED = 10  # runs that are named of those that hold something


class Obstacles:
    """Looks for what holds a queued run up."""

    def __init__(
        self,
        store: Store,
        answers: Answers,
        registry: AgentRegistry,
        scheduling: Scheduling,
        owner: Callable[[], str | None],
    ) -> None:
        """`owner` tells which server this process is; None where it is none."""
        self._store = store
        self._answers = answers
        self._registry = registry
        self._scheduling = scheduling
        self._owner = owner

    async def of(self, row: sqlite3.Row) -> tuple[list[str], str]:
        """What the queued run waits for, and that in a sentence. Raises StoreError."""
        if row["blocked"] is not None:
            found = await self._hold(row)
            verb = "Waits for" if row["blocked"] == "dependencies" else "Kept back by"
            return found, f"{verb} {' and '.join(found)}."
        place = await self._store.row(SQL["queue_place"], (row["run_id"],))
        ahead = int(place[0]) if place else 0
        found = self._obstacles(row, await self._store.rows(SQL["slot_holders"]), ahead)
        strategy = self._scheduling.strategy.name
        return found, f"Queued behind {_runs(ahead)} ({strategy}), waiting for {' and '.join(found)}."

    async def queue(self, limit: int) -> QueueView:
        """The first runs of the queue, and the first of those kept out of it, with what each waits for: at most `limit`
        of either. Raises StoreError."""
        rows = await self._store.rows(SQL["queue_rows"], (limit,))
        held = await self._store.rows(SQL["held_rows"], (limit,))
        holders = await self._store.rows(SQL["slot_holders"])
        reasons = [self._obstacles(row, holders, ahead) for ahead, row in enumerate(rows)]
        reasons += [await self._hold(row) for row in held]
        (waiting,), (kept,) = [await self._store.row(SQL[name]) or (0,) for name in ("count_queued", "count_held")]
        return QueueView(
            strategy=self._scheduling.strategy.name,
            max_concurrent_flows=self._scheduling.max_concurrent_flows,
            queued=waiting - kept,
            held=kept,
            runs=[
                QueuedView(run=self._answers.run_view(row), waiting_for=found)
                for row, found in zip([*rows, *held], reasons, strict=True)
            ],
        )

    async def _hold(self, row: sqlite3.Row) -> list[str]:
        """What keeps a run out of the queue."""
        if row["blocked"] == "dependencies":
            return await self._dependencies(row["run_id"])
        return [await self._limit(row["blocked"])]

    def _obstacles(self, row: sqlite3.Row, holders: list[sqlite3.Row], ahead: int) -> list[str]:
        return self._pools(row, holders) or [self._slots(holders, ahead)]

    async def _dependencies(self, run_id: str) -> list[str]:
        found = []
        for dependency in await self._answers.dependencies(run_id) or ():
            if dependency.run_id is None:
                found.append(f"the first run of flow {dependency.id}")
            elif dependency.state == "waiting":
                name = (
                    dependency.run_id
                    if dependency.id == dependency.run_id
                    else (f"{dependency.run_id}, the latest run of flow {dependency.id},")
                )
                state = (await self._answers.row(dependency.run_id))["state"]
                found.append(f"run {name} to complete (it is {state})")
        return found or ["its dependencies to be looked at; they have ended"]

    async def _limit(self, key: str) -> str:
        kind, _, name = key.partition(":")
        sizes = {(row["kind"], row["name"]): row["size"] for row in await self._store.rows(SQL["read_limits"])}
        holders = await self._store.rows(SQL["limit_holders"], (kind, name, kind, name, NAMED))
        held = ", ".join(row["run_id"] for row in holders) or "none"
        return f"the limit of {kind} {name!r} ({_runs(int(sizes.get((kind, name), 0)))} at once; held by {held})"

    def _pools(self, row: sqlite3.Row, holders: list[sqlite3.Row]) -> list[str]:
        wanted: dict[str, float] = json.loads(row["demands"]) if row["demands"] else {}
        found = []
        places = self._registry.places() if self._scheduling.strategy.look_ahead else {}
        for pool, size in {**self._scheduling.pools, **places}.items():
            amount = min(wanted.get(pool, 0.0), size)
            held = {
                holder["run_id"]: held_by(holder["owner"], holder["demands"], self._owner()).get(pool, 0.0)
                for holder in holders
            }
            if amount and sum(held.values()) + amount > size:
                names = ", ".join(run_id for run_id, share in list(held.items())[:NAMED] if share)
                kind, _, agent = pool.partition(":")
                of = f"place of agent {agent!r}" if kind == "agent" else f"of pool {pool!r}"
                found.append(f"{amount:g} {of} (it has {size:g}; held by {names})")
        return found

    def _slots(self, holders: list[sqlite3.Row], ahead: int) -> str:
        limit = self._scheduling.max_concurrent_flows
        if len(holders) >= limit:
            names = ", ".join(holder["run_id"] for holder in holders[:NAMED])
            return f"a free slot (max_concurrent_flows is {limit}; held by {names})"
        if ahead:
            return "those before it in the queue"
        throttle = f"; none starts beside others while the load is over {MAX_LOAD:.0%}"
        return f"a server: a slot is free{throttle if self._scheduling.strategy.look_ahead else ''}"


def _runs(number: int) -> str:
    return f"{number} run" if number == 1 else f"{number} runs"
