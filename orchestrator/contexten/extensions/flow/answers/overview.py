"""The whole at a glance: scheduler, metrics, agents, and whether the database is sound."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path

import anyio.from_thread
import anyio.to_thread

from ..agents.registry import AgentRegistry
from ..clock import Clock, iso
from ..engines import Engines
from ..recovery.circuits import Circuits
from ..scheduling.in_force import Scheduling
from ..scheduling.rates import RateLimits
from ..store import Store
from ..store.backup import backup
from ..store.servers import is_held
from ..store.sql import SQL
from ..store.verify import verify
from ..views import (
    AgentsView,
    AgentView,
    BackupReport,
    CircuitView,
    MetricsView,
    SchedulerView,
    ServerView,
    ToolView,
    VerifyReport,
)
from .figures import Figures
from .reading import Answers

PREVIEW = 20  # queued runs that the scheduler's state names


class Overview:
    """Answers about everything at once."""

    def __init__(
        self,
        store: Store,
        answers: Answers,
        registry: AgentRegistry,
        engines: Engines,
        scheduling: Scheduling,
        *,
        circuits: Circuits,
        limits: RateLimits,
        clock: Clock,
    ) -> None:
        self._store = store
        self._answers = answers
        self._registry = registry
        self._engines = engines
        self._scheduling = scheduling
        self._circuits = circuits
        self._limits = limits
        self._clock = clock
        self._figures = Figures(store, clock)

    async def runs_by_state(self) -> dict[str, int]:
        """How many runs there are, without those of sub-flows."""
        return await self._answers.counts("count_runs")

    async def scheduler(self) -> SchedulerView:
        """The scheduler's state now."""
        counts = await self.runs_by_state()
        preview = await self._store.rows(SQL["queue_preview"], (PREVIEW,))
        return SchedulerView(
            strategy=self._scheduling.strategy.name,
            max_concurrent_flows=self._scheduling.max_concurrent_flows,
            running=counts.get("running", 0),
            queued=counts.get("scheduled", 0),
            waiting=counts.get("waiting", 0),
            paused=counts.get("paused", 0),
            next_runs=[str(row[0]) for row in preview],
            servers=await self.servers(),
        )

    async def servers(self) -> list[ServerView]:
        """The servers that drive the database now, oldest first."""
        return [
            ServerView(
                server_id=row["server_id"],
                holder=row["holder"],
                host=row["host"],
                pid=row["pid"],
                started_at=iso(row["started_at"]) or "",
                heard_at=iso(row["beat_at"]) or "",
                runs=row["runs"],
            )
            for row in await self._store.rows(SQL["list_servers"])
            if is_held(self._store.path, row["server_id"])
        ]

    async def metrics(self) -> MetricsView:
        """Figures about scheduler, flows, tasks, agents and store."""
        runs = await self.runs_by_state()
        tasks = await self._store.survey(SQL["task_figures"])
        (durations,) = await self._store.survey(SQL["duration_stats"])
        cache = await self._store.row(SQL["cache_figures"])
        completed, failed = runs.get("completed", 0), runs.get("failed", 0)
        failed_runs, failures = await self._figures.failures()
        return MetricsView(
            scheduler={**(await self.scheduler()).data(), "waits": await self._figures.waits()},
            flows={
                "runs_by_state": runs,
                "success_rate": round(completed / (completed + failed), 4) if completed + failed else None,
                "failed_by_kind": failed_runs,
                "mean_duration_s": round(durations[1], 4) if durations[1] is not None else None,
                "max_duration_s": round(durations[2], 4) if durations[2] is not None else None,
            },
            tasks={
                "tasks_by_state": {row["state"]: row["tasks"] for row in tasks if row["tasks"]},
                "attempts": sum(row["attempts"] for row in tasks),
                "retried": sum(row["retried"] for row in tasks),
                "failures": failures,
                "cache_hits": cache[0] if cache else 0,
                "cache_entries": cache[1] if cache else 0,
            },
            agents={
                "running": self._registry.running,
                "agents": len(self._registry.agents),
                "models": [dict(row) for row in await self._store.rows(SQL["usage_by_model"])],
            },
            store={"bytes": self._store.size(), **self._store.figures(), "sqlite": sqlite3.sqlite_version},
        )

    async def agents(self) -> AgentsView:
        """Agents, tools and engines of this process."""
        snapshot = self._registry.snapshot()
        servers = len(await self.servers())
        note = f"{servers} servers drive this database; these are the agents of this process only"
        return AgentsView(
            agents=[AgentView(**agent, circuit=self._circuit("agent", agent["name"])) for agent in snapshot["agents"]],
            tools=[
                ToolView(**tool, circuit=self._circuit("tool", tool["name"]), rate_limit=self._rate(tool["name"]))
                for tool in snapshot["tools"]
            ],
            engines=await self._engines.views(),
            disabled_tools=snapshot["disabled_tools"],
            note=note if servers > 1 else None,
        )

    def _circuit(self, subject: str, name: str) -> CircuitView | None:
        now = self._clock.monotonic()
        state, until = self._circuits.state(subject, name, now)
        if until is None:
            return None
        return CircuitView(state=state, until=iso(self._clock.timestamp() + until - now) or "")

    def _rate(self, tool: str) -> str | None:
        limit = self._limits.limits.get(tool)
        return str(limit) if limit is not None else None

    async def verify(self) -> VerifyReport:
        """Fold the journal and compare it with the state tables; check the file's integrity. Raises StoreError."""
        found = await asyncio.to_thread(verify, self._store.path)
        return VerifyReport(
            ok=not found.problems,
            runs=found.runs,
            events=found.events,
            integrity=found.integrity,
            problems=found.problems,
        )

    async def backup(self, path: Path, *, overwrite: bool) -> BackupReport:
        """Copy the database while it is in use. Raises InvalidArguments, StoreError."""

        def go_on(_left: int, _total: int) -> None:
            anyio.from_thread.check_cancelled()

        copy = partial(backup, self._store.path, path, overwrite=overwrite, on_step=go_on)
        made = await anyio.to_thread.run_sync(copy)
        return BackupReport(path=str(made.path), size=made.size, runs=made.found.runs, events=made.found.events)
