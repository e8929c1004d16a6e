"""How long runs and tasks take: from this store's own history, with the sample size; before there is any, a guess."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..clock import Clock
from ..definition import Plan
from ..flows.planview import critical_path
from ..store import Store
from ..store.sql import SQL
from ..views import EstimateView

RUNS = 200  # of the latest runs: older ones tell less
ENOUGH = 3  # runs of the same version, before those of other versions need not help out
KEPT_S = 10.0  # an estimate is good for that long
KEPT = 1024
SECONDS_A_COMPLEXITY = 1.0  # the guess where there is no history
GUESSED = "a guess from the declared complexity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Durations in seconds. `source`: `version` or `flow` (its history), or `complexity` (a guess without samples)."""

    p50_s: float
    p90_s: float
    samples: int
    source: str

    @property
    def is_known(self) -> bool:
        """Whether it comes from history."""
        return self.samples > 0

    def view(self, task: str | None = None) -> EstimateView:
        """As answers show it."""
        return EstimateView(task=task, p50_s=self.p50_s, p90_s=self.p90_s, samples=self.samples, source=self.source)


def percentile(sorted_values: list[float], fraction: float) -> float:
    """Linear interpolation between the closest ranks (Hyndman and Fan 1996, type 7)."""
    place = (len(sorted_values) - 1) * fraction
    low = int(place)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (sorted_values[high] - sorted_values[low]) * (place - low)


def of_durations(durations: Iterable[float], source: str) -> Estimate:
    """The estimate from durations, at least one."""
    values = sorted(max(0.0, value) for value in durations)
    return Estimate(
        p50_s=round(percentile(values, 0.5), 4),
        p90_s=round(percentile(values, 0.9), 4),
        samples=len(values),
        source=source,
    )


class Estimates:
    """Estimates of one store's flows, kept for a few seconds each."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._kept: dict[tuple[str, int], tuple[float, Estimate, Estimate]] = {}

    async def of_run(self, flow_id: str, version: int, plan: Plan, *, is_fresh: bool = False) -> Estimate:
        """How long a run of that version takes from its start to its end, less time paused; with `is_fresh` of the
        history as it is now. Raises StoreError."""
        if is_fresh:
            self._kept.pop((flow_id, version), None)
        return (await self._look(flow_id, version, plan))[1]

    async def of_slot(self, flow_id: str, version: int, plan: Plan) -> Estimate:
        """How long such a run holds a slot: what it waits for a time is not counted. Raises StoreError."""
        return (await self._look(flow_id, version, plan))[2]

    async def _look(self, flow_id: str, version: int, plan: Plan) -> tuple[float, Estimate, Estimate]:
        now = self._clock.monotonic()
        kept = self._kept.get((flow_id, version))
        if kept is not None and now - kept[0] < KEPT_S:
            return kept
        rows = await self._store.rows(SQL["run_durations"], (flow_id, RUNS))
        own = [row for row in rows if row[0] == version]
        basis, source = (own, "version") if len(own) >= ENOUGH else (rows, "flow")
        if basis:
            run, slot = (of_durations((row[column] for row in basis), source) for column in (1, 2))
        else:  # not kept: the first run that ends makes it untrue
            guessed = guess(plan)
            return now, guessed, guessed
        if len(self._kept) >= KEPT:
            self._kept.clear()
        found = self._kept[flow_id, version] = (now, run, slot)
        return found

    async def of_tasks(self, flow_id: str, plan: Plan) -> dict[str, Estimate]:
        """How long each task of a flow takes, all its attempts together. Raises StoreError."""
        durations: dict[str, list[float]] = {}
        for row in await self._store.rows(SQL["task_durations"], (flow_id, RUNS)):
            durations.setdefault(row[0], []).append(row[1])
        known = {name: of_durations(found, "flow") for name, found in durations.items() if name in plan.tasks}
        return guess_tasks(plan) | known


def guess_tasks(plan: Plan) -> dict[str, Estimate]:
    """From each task's declared complexity."""
    return {name: _guess_of(node.task.complexity * SECONDS_A_COMPLEXITY) for name, node in plan.tasks.items()}


def guess(plan: Plan) -> Estimate:
    """From the declared complexity of the longest chain of tasks, a second for each."""
    return _guess_of(SECONDS_A_COMPLEXITY * sum(plan.tasks[name].task.complexity for name in critical_path(plan)))


def _guess_of(seconds: float) -> Estimate:
    return Estimate(p50_s=seconds, p90_s=seconds, samples=0, source="complexity")
