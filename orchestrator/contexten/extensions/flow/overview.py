"""The whole at a glance: scheduler, metrics, agents, and whether the database is sound."""

from __future__ import annotations

import asyncio
import sqlite3

from .agents.registry import AgentRegistry
from .answers import Answers
from .engines import engine_views
from .scheduling import Scheduling
from .store import Store
from .store.sql import SQL
from .store.verify import verify
from .store.writer import translate
from .views import AgentsView, AgentView, MetricsView, SchedulerView, ToolView, VerifyReport

PREVIEW = 20  # queued runs that the scheduler's state names


class Overview:
    """Answers about everything at once."""

    def __init__(self, store: Store, answers: Answers, registry: AgentRegistry, scheduling: Scheduling) -> None:
        self._store = store
        self._answers = answers
        self._registry = registry
        self._scheduling = scheduling

    async def scheduler(self) -> SchedulerView:
        """The scheduler's state now."""
        counts = await self._answers.counts("count_runs")
        preview = await self._store.rows(SQL["queue_preview"], (PREVIEW,))
        return SchedulerView(
            strategy=self._scheduling.strategy.name,
            max_concurrent_flows=self._scheduling.max_concurrent_flows,
            running=counts.get("running", 0),
            queued=counts.get("scheduled", 0),
            waiting=counts.get("waiting", 0),
            paused=counts.get("paused", 0),
            next_runs=[str(row[0]) for row in preview],
        )

    async def metrics(self) -> MetricsView:
        """Figures about scheduler, flows, tasks, agents and store."""
        runs = await self._answers.counts("count_runs")
        tasks = await self._answers.counts("count_tasks")
        durations = await self._store.row(SQL["duration_stats"])
        attempts = await self._store.row(SQL["retry_stats"])
        completed, failed = runs.get("completed", 0), runs.get("failed", 0)
        return MetricsView(
            scheduler=(await self.scheduler()).data(),
            flows={
                "runs_by_state": runs,
                "success_rate": round(completed / (completed + failed), 4) if completed + failed else None,
                "mean_duration_s": round(durations[1], 4) if durations and durations[1] is not None else None,
                "max_duration_s": round(durations[2], 4) if durations and durations[2] is not None else None,
            },
            tasks={
                "tasks_by_state": tasks,
                "attempts": attempts[0] if attempts else 0,
                "retried": attempts[1] if attempts else 0,
            },
            agents={"running": self._registry.running, "agents": len(self._registry.agents)},
            store={"bytes": self._store.size(), **self._store.figures(), "sqlite": sqlite3.sqlite_version},
        )

    async def agents(self) -> AgentsView:
        """Agents, tools and engines of this process."""
        snapshot = self._registry.snapshot()
        return AgentsView(
            agents=[AgentView(**agent) for agent in snapshot["agents"]],
            tools=[ToolView(**tool) for tool in snapshot["tools"]],
            engines=engine_views(),
            disabled_tools=snapshot["disabled_tools"],
        )

    async def verify(self) -> VerifyReport:
        """Fold the journal and compare it with the state tables; check the file's integrity. Raises StoreError."""
        try:
            found = await asyncio.to_thread(verify, self._store.path)
        except sqlite3.Error as error:
            raise translate(error) from error
        return VerifyReport(
            ok=not found.problems,
            runs=found.runs,
            events=found.events,
            integrity=found.integrity,
            problems=found.problems,
        )
