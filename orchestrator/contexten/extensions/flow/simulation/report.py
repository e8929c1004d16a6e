"""Schedules side by side: figures for each strategy, and a recommendation with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from ..scheduling.estimates import percentile
from .simulate import Schedule

STARVING_S = 3600.0
"""Who waits longer counts as starved, unless another bound is given."""

SIMPLEST_FIRST = ("fifo", "priority", "deadline_aware", "resource_aware", "load_balanced")
"""Of strategies that do equally well the first is recommended: it is the easier to foresee."""

SAME = 0.05  # waits that differ by less than this part count as equal
SAME_OF_DURATION = 0.01  # and so do those that differ by less than this part of what a run takes


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyReport:
    """What one strategy did with the workload. Times in seconds, utilisations as parts from 0 to 1."""

    strategy: str
    runs: int
    mean_wait_s: float
    p95_wait_s: float
    urgent_wait_s: float
    """The mean wait of the runs with the most urgent priority that there is."""
    longest_wait_s: float
    starved: int
    """Runs that waited longer than the bound."""
    makespan_s: float
    """From the beginning to the last end."""
    deadlines: int
    missed_deadlines: int
    slot_utilisation: float
    """Of the slots over the makespan."""
    pool_utilisation: dict[str, float] = field(default_factory=dict)
    """Of each pool with a size, over the makespan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All strategies on one workload; `recommended` is None where nothing ran."""

    reports: tuple[StrategyReport, ...]
    recommended: str | None
    reason: str
    starving_s: float
    """The bound of the column `starved`."""


def compare(schedules: Sequence[Schedule], *, starving_s: float = STARVING_S) -> Comparison:
    """Schedules of the same workload side by side."""
    reports = tuple(_report(schedule, starving_s) for schedule in schedules)
    durations = [outcome.job.duration_s for schedule in schedules[:1] for outcome in schedule.outcomes]
    recommended, reason = _recommend(reports, SAME_OF_DURATION * fmean(durations or [0.0]))
    return Comparison(reports=reports, recommended=recommended, reason=reason, starving_s=starving_s)


def _report(schedule: Schedule, starving_s: float) -> StrategyReport:
    outcomes, workload = schedule.outcomes, schedule.workload
    waits = sorted(outcome.wait_s for outcome in outcomes) or [0.0]
    most_urgent = min((outcome.job.priority for outcome in outcomes), default=0)
    urgent = [outcome.wait_s for outcome in outcomes if outcome.job.priority == most_urgent]
    makespan = schedule.end - workload.start
    held = _held(schedule)
    return StrategyReport(
        strategy=schedule.strategy,
        runs=len(outcomes),
        mean_wait_s=fmean(waits),
        p95_wait_s=percentile(waits, 0.95),
        urgent_wait_s=fmean(urgent or [0.0]),
        longest_wait_s=waits[-1],
        starved=sum(wait > starving_s for wait in waits),
        makespan_s=makespan,
        deadlines=sum(outcome.job.deadline is not None for outcome in outcomes),
        missed_deadlines=sum(outcome.is_late for outcome in outcomes),
        slot_utilisation=_part(sum(seconds for seconds, _ in held), workload.slots * makespan),
        pool_utilisation={
            pool: _part(sum(seconds * min(demands.get(pool, 0.0), size) for seconds, demands in held), size * makespan)
            for pool, size in sorted(workload.capacity.items())
            if size > 0
        },
    )


def _held(schedule: Schedule) -> list[tuple[float, Mapping[str, float]]]:
    """For how many seconds of the replay each run held a slot and its demands."""
    begin, end = schedule.workload.start, schedule.end
    before = [(max(0.0, min(run.expected_end or 0.0, end) - begin), run.demands) for run in schedule.workload.running]
    return before + [(outcome.end - outcome.start, outcome.job.demands) for outcome in schedule.outcomes]


def _part(amount: float, whole: float) -> float:
    return amount / whole if whole > 0 else 0.0


class _Criterion(NamedTuple):
    """Something that should be small."""

    name: str
    value: Callable[[StrategyReport], float]
    is_time: bool

    def told(self, report: StrategyReport) -> str:
        value = self.value(report)
        return f"{value:,.4g} s" if self.is_time else f"{value:g}"


CRITERIA = (
    _Criterion("missed deadlines", lambda report: report.missed_deadlines, is_time=False),
    _Criterion("mean wait of the most urgent runs", lambda report: report.urgent_wait_s, is_time=True),
    _Criterion("runs that waited over the bound", lambda report: report.starved, is_time=False),
    _Criterion("mean wait", lambda report: report.mean_wait_s, is_time=True),
    _Criterion("makespan", lambda report: report.makespan_s, is_time=True),
)
"""What matters, the first most: a later one decides among the strategies that the earlier ones find equal."""


def _recommend(reports: Sequence[StrategyReport], same_s: float) -> tuple[str | None, str]:
    """The strategy that is left when each criterion in turn has dismissed those that it finds worse than the best."""
    if not any(report.runs for report in reports):
        return None, "Nothing ran, so there is nothing to compare."
    left = sorted(reports, key=lambda report: SIMPLEST_FIRST.index(report.strategy))
    decided: list[tuple[_Criterion, StrategyReport]] = []
    for criterion in CRITERIA:
        least = min(map(criterion.value, left))
        bound = least * (1 + SAME) + (same_s if criterion.is_time else 0)
        worse = [report for report in left if criterion.value(report) > bound]
        left = [report for report in left if criterion.value(report) <= bound]
        if worse:
            decided.append((criterion, min(worse, key=criterion.value)))
    best = left[0]
    reasons = [f"{what.name} {what.told(best)} ({other.strategy}: {what.told(other)})" for what, other in decided]
    if len(left) > 1:
        equals = ", ".join(report.strategy for report in left[1:])
        reasons.append(f"{equals} {'does' if len(left) == 2 else 'do'} as well, and {best.strategy} is simpler")
    return best.strategy, f"{best.strategy}: {'; '.join(reasons)}."
