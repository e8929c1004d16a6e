"""What the scheduler would do: when a queued run will start, and how each strategy would fare with this store's runs.

Both replay runs of the store through the strategies themselves: the queue and what runs now with the durations that
are to be expected, recent history with the durations that it had.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..clock import Clock, iso
from ..flows.plans import Plans
from ..settings import FlowSettings
from ..simulation import Comparison, Job, Workload, compare, simulate, simulate_all
from ..store import Store
from ..store.sql import SQL
from ..strategies import RunningRun
from ..views import StrategyChange, StrategyFigures, StrategyForecast, StrategyState
from .estimates import GUESSED, Estimate, Estimates
from .in_force import Scheduling

QUEUE = 2000  # queued runs that a forecast looks at
HISTORY = 2000  # runs of history that are replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedStart:
    """When a queued run will probably start."""

    at: float
    """In seconds since the epoch."""
    asked_at: float
    """When this was the expectation."""
    needs_s: float | None
    """How long the run will then probably take; None where no history tells."""
    basis: str
    """Where the durations of the runs before it come from; empty where there are none."""
    is_overdue: bool
    """A run that is in the way takes longer than was expected: `at` is the earliest, and moves on with the time."""

    def in_words(self) -> str:
        """A sentence that says when, and on what ground."""
        basis = f" ({self.basis})" if self.basis else ""
        if not self.is_overdue:
            return f"It will probably start at {iso(self.at)}{basis}."
        late = f"what runs now takes longer than expected{basis}"
        if self.at <= self.asked_at:
            return f"It should have started by now; {late}."
        return f"It will start at {iso(self.at)} at the earliest; {late}."


class Forecast:
    """Simulations on one store. A simulation runs on a thread of its own."""

    def __init__(
        self,
        store: Store,
        *,
        estimates: Estimates,
        plans: Plans,
        scheduling: Scheduling,
        settings: FlowSettings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._estimates = estimates
        self._plans = plans
        self._scheduling = scheduling
        self._settings = settings
        self._clock = clock

    async def expected_start(self, run_id: str) -> ExpectedStart | None:
        """When a queued run will probably start; None where it is held up by more than the queue, or is too far behind.
        Raises StoreError."""
        now = self._clock.timestamp()
        queued, running = await self._present()
        if all(row["run_id"] != run_id for row in queued):
            return None
        workload = Workload(
            jobs=[await self._queued(row) for row in queued],
            slots=max(self._scheduling.max_concurrent_flows, 1),
            capacity=self._scheduling.pools,
            running=[await self._running(row, now) for row in running],
            begin=now,
        )
        schedule = await asyncio.to_thread(simulate, workload, self._scheduling.strategy)
        place, found = next(
            (place, outcome) for place, outcome in enumerate(schedule.outcomes) if outcome.job.run_id == run_id
        )
        before = {outcome.job.run_id for outcome in schedule.outcomes[:place]}
        counted = [*running, *(row for row in queued if row["run_id"] in before)]
        estimates = [await self._estimate(row) for row in counted]
        return ExpectedStart(
            at=found.start,
            asked_at=now,
            needs_s=found.job.estimate_s,
            basis=_basis(estimates),
            is_overdue=len(running) >= workload.slots and any(run.expected_end == now for run in workload.running),
        )

    async def rehearse(self, strategy: object, max_concurrent_flows: object) -> StrategyChange:
        """What set_strategy with these arguments would change, and how all strategies would fare. Raises
        InvalidArguments, StoreError."""
        chosen, limit = self._scheduling.proposed(strategy, max_concurrent_flows)
        before = self._scheduling.state
        forecast = await self.compare(limit)
        return StrategyChange(
            before=before,
            after=StrategyState(strategy=chosen.name, max_concurrent_flows=limit),
            effect=_effect(forecast, before.strategy, chosen.name),
            dry_run=True,
            forecast=forecast,
        )

    async def compare(self, max_concurrent_flows: int) -> StrategyForecast:
        """How each strategy would have fared with recent history and the queue, in so many slots. Raises StoreError."""
        now = self._clock.timestamp()
        queued, running = await self._present()
        past = await self._store.rows(SQL["history_for_forecast"], (HISTORY,))
        history = _without(past, queued + running)
        jobs = [self._past(row) for row in history]
        for row in running:
            held = await self._running(row, now)
            end = max(held.expected_end or now, now)
            jobs.append(self._job(row, duration_s=end - row["started_at"], estimate_s=row["estimate_s"]))
        jobs += [await self._queued(row) for row in queued]
        workload = Workload(jobs=jobs, slots=max_concurrent_flows, capacity=self._scheduling.pools)
        found = await asyncio.to_thread(self._replay, workload)
        return StrategyForecast(
            runs=len(jobs),
            from_history=len(history),
            queued=len(queued),
            slots=max_concurrent_flows,
            strategies=[_figures(report) for report in map(asdict, found.reports)],
            recommended=found.recommended,
            reason=found.reason,
        )

    async def _present(self) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
        """The queue and what runs, each run once. They are read in the order in which runs move, so that one that moves
        meanwhile is seen twice rather than never."""
        queued = await self._store.rows(SQL["queue_window"], (QUEUE,))
        running = await self._store.rows(SQL["running_for_forecast"])
        return _without(queued, running), running

    def _replay(self, workload: Workload) -> Comparison:
        schedules = simulate_all(workload, aging_interval_s=self._settings.aging_interval_s)
        return compare(schedules)

    # Runs as jobs
    @staticmethod
    def _job(row: sqlite3.Row, *, duration_s: float, estimate_s: float | None) -> Job:
        return Job(
            run_id=row["run_id"],
            arrival=row["created_at"],
            duration_s=max(0.0, duration_s),
            estimate_s=estimate_s,
            priority=row["priority"],
            deadline=row["deadline"],
            demands=_demands(row),
        )

    def _past(self, row: sqlite3.Row) -> Job:
        duration = row["slot_s"]
        return self._job(
            row, duration_s=duration, estimate_s=duration if row["estimate_s"] is None else row["estimate_s"]
        )

    async def _queued(self, row: sqlite3.Row) -> Job:
        estimate = await self._estimate(row)
        known = estimate.p50_s if estimate.is_known else None
        return self._job(row, duration_s=estimate.p50_s, estimate_s=row["estimate_s"] or known)

    async def _running(self, row: sqlite3.Row, now: float) -> RunningRun:
        estimate = await self._estimate(row)
        end = max(now, row["started_at"] + estimate.p50_s)
        return RunningRun(run_id=row["run_id"], demands=_demands(row), expected_end=end)

    async def _estimate(self, row: sqlite3.Row) -> Estimate:
        plan, version = await self._plans.plan_of(row["flow_id"], row["version"])
        return await self._estimates.of_slot(row["flow_id"], version, plan)


def _without(rows: list[sqlite3.Row], others: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """The rows of other runs than those."""
    seen = {row["run_id"] for row in others}
    return [row for row in rows if row["run_id"] not in seen]


def _basis(estimates: list[Estimate]) -> str:
    if not estimates:
        return ""
    return "from how long such runs took" if all(estimate.is_known for estimate in estimates) else GUESSED


def _effect(forecast: StrategyForecast, before: str, after: str) -> str:
    if not forecast.runs:
        return "Nothing was changed. There is neither history nor a queue to replay."
    found = {figures.strategy: figures for figures in forecast.strategies}
    old, new = found[before], found[after]
    guessed = "" if forecast.from_history else f" How long the runs take is {GUESSED}."
    return (
        f"Nothing was changed. With {forecast.from_history} past and {forecast.queued} queued runs in {forecast.slots} "
        f"slots, {after} would have a mean wait of {new.mean_wait_s:g} s and miss {new.missed_deadlines} deadlines "
        f"({before}: {old.mean_wait_s:g} s and {old.missed_deadlines}).{guessed}"
    )


def _demands(row: sqlite3.Row) -> Mapping[str, float]:
    """Of pools; agents' places are this or that process's."""
    held: dict[str, float] = json.loads(row["demands"]) if row["demands"] else {}
    return {name: amount for name, amount in held.items() if not name.startswith("agent:")}


def _figures(report: dict[str, object]) -> StrategyFigures:
    kept = {name: report[name] for name in StrategyFigures.model_fields}
    return StrategyFigures(
        **{name: round(value, 4) if isinstance(value, float) else value for name, value in kept.items()}
    )
