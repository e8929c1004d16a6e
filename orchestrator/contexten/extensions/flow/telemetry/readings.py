"""What stands where now: gauges of the database and of this process."""

from __future__ import annotations

from dataclasses import dataclass

from ..agents.registry import AgentRegistry
from ..clock import Clock
from ..scheduling.in_force import Scheduling
from ..store import Store
from ..store.sql import SQL


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReading:
    """One agent of this process."""

    name: str
    capacity: int
    running: int
    load: float
    """Outstanding complexity per capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Of the database, but for `agents`, `commits` and `changes`, which are of this process."""

    runs: dict[str, int]
    """Unfinished runs by state, without those of sub-flows."""
    slots: int
    """How many runs may be under way at once."""
    oldest_queued_s: float
    """For how long the oldest queued run has waited; 0 where none is queued."""
    servers: int
    """Servers that drive the database."""
    deliveries_waiting: int
    """Deliveries of triggers about which nothing was done yet."""
    dispatches: dict[str, int]
    """Messages of notifications that are not sent, by state: pending, sending, or dead, those that were given up."""
    store_bytes: int
    events: int
    """Entries that the journal has ever had."""
    commits: int
    """Groups of changes that this process committed since it opened the database."""
    changes: int
    agents: tuple[AgentReading, ...]


async def take_readings(store: Store, registry: AgentRegistry, scheduling: Scheduling, clock: Clock) -> Readings:
    """Read them; a few milliseconds, however large the database. Raises StoreError."""
    runs = dict.fromkeys(("scheduled", "running", "waiting", "paused"), 0)
    runs |= {str(row[0]): int(row[1]) for row in await store.rows(SQL["unfinished_runs"])}
    dispatches = dict.fromkeys(("pending", "sending", "dead"), 0)
    dispatches |= {str(row[0]): int(row[1]) for row in await store.rows(SQL["unsent_dispatches"])}
    row = await store.row(SQL["gauges"])
    assert row is not None  # noqa: S101 - it selects values
    figures = store.figures()
    return Readings(
        runs=runs,
        slots=scheduling.max_concurrent_flows,
        oldest_queued_s=max(0.0, clock.timestamp() - row["oldest_queued"]) if row["oldest_queued"] is not None else 0.0,
        servers=row["servers"],
        deliveries_waiting=row["deliveries_waiting"],
        dispatches=dispatches,
        store_bytes=store.size(),
        events=row["events"],
        commits=figures["commits"],
        changes=figures["changes"],
        agents=tuple(
            AgentReading(name=agent["name"], capacity=agent["capacity"], running=agent["running"], load=agent["load"])
            for agent in registry.snapshot()["agents"]
        ),
    )
