"""Each strategy against FIFO on generated workloads, kept in docs/scheduling.md: `python -m benchmarks.schedules`.

The workloads are drawn, with a fixed seed, from the distributions that models of real traces use:
- arrivals: gamma gaps (shape 0.5: in bursts) with a daily cycle, after U. Lublin, D. G. Feitelson, "The Workload on
  Parallel Supercomputers: Modeling the Characteristics of Rigid Jobs", J. Parallel and Distributed Computing 63, 2003;
- durations: log-normal, median 60 s, sigma 1.2, at most 4 h;
- estimates: the duration times a uniform factor from 1 to 3 (the f-model of Mu'alem and Feitelson, 2001), and of 15 %
  of the runs none.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import keep_on_page
from contexten.extensions.flow.simulation import Comparison, Job, Schedule, Workload, compare, simulate_all
from contexten.extensions.flow.simulation.plot import timeline_chart, waits_chart

PAGE = Path(__file__).parents[1] / "docs" / "scheduling.md"
SEED = 20030
STARVING_S = 600.0
AGING_INTERVAL_S = 60.0  # the default of the settings
DAY_S = 86_400.0
DAILY_SWING = 0.3  # of the rate of arrivals around its mean
MEDIAN_S, SIGMA, LONGEST_S = 60.0, 1.2, 4 * 3600.0
MEAN_S = MEDIAN_S * math.exp(SIGMA**2 / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What distinguishes a workload; `demands` gives for each pool the part of the runs that use it and how much."""

    name: str
    told: str
    load: float
    """Slot seconds demanded for each that there is, on average."""
    slots: int = 16
    capacity: Mapping[str, float] = field(default_factory=dict)
    demands: Mapping[str, tuple[float, tuple[int, ...]]] = field(default_factory=dict)
    with_deadline: float = 0.0
    """The part of the runs that have a deadline."""


SCENARIOS = (
    Scenario(name="slots", told="only slots are scarce", load=0.75),
    Scenario(
        name="pools",
        told="pools are scarce too: a tenth of the runs hold 1, 2 or 4 of `gpu` (8), a fifth 1 or 2 of `browser` (8)",
        load=0.7,
        capacity={"gpu": 8, "browser": 8},
        demands={"gpu": (0.1, (1, 1, 2, 2, 4)), "browser": (0.2, (1, 1, 2))},
    ),
    Scenario(
        name="deadlines", told="only slots are scarce; 40 % of the runs have a deadline", load=0.75, with_deadline=0.4
    ),
)


def workload(scenario: Scenario, jobs: int, seed: int = SEED) -> Workload:
    """The jobs of a scenario; the same for the same seed."""
    draw = random.Random(f"{seed} {scenario.name}")
    gap_s = MEAN_S / (scenario.load * scenario.slots)
    arrival, made = 0.0, []
    for number in range(jobs):
        rate = 1 + DAILY_SWING * math.sin(2 * math.pi * arrival / DAY_S)
        arrival += draw.gammavariate(0.5, gap_s / 0.5) / rate
        made.append(_job(scenario, draw, f"run_{number}", arrival))
    return Workload(jobs=tuple(made), slots=scenario.slots, capacity=scenario.capacity)


def _job(scenario: Scenario, draw: random.Random, run_id: str, arrival: float) -> Job:
    duration_s = min(LONGEST_S, draw.lognormvariate(math.log(MEDIAN_S), SIGMA))
    return Job(
        run_id=run_id,
        arrival=arrival,
        duration_s=duration_s,
        estimate_s=None if draw.random() < 0.15 else duration_s * draw.uniform(1, 3),
        priority=draw.choices(range(5), weights=(5, 15, 60, 15, 5))[0],
        deadline=arrival + 2 * duration_s + draw.expovariate(1 / 600)
        if draw.random() < scenario.with_deadline
        else None,
        demands={
            pool: float(draw.choice(amounts))
            for pool, (part, amounts) in scenario.demands.items()
            if draw.random() < part
        },
    )


def section(scenario: Scenario, jobs: int, comparison: Comparison, charts: list[str]) -> str:
    """A scenario's table, recommendation and charts as Markdown."""
    fifo = next(report for report in comparison.reports if report.strategy == "fifo")
    pools = list(scenario.capacity)
    headings = [
        *("strategy", "mean wait", "against fifo", "p95 wait", "most urgent", "longest", "starved", "missed"),
        *("makespan", "slots used", *(f"{pool} used" for pool in pools)),
    ]
    lines = [
        f"### {scenario.name.capitalize()}",
        "",
        f"{jobs:,} runs on {scenario.slots} slots, load {scenario.load:g}: {scenario.told}.",
        "",
        f"| {' | '.join(headings)} |",
        f"|{' --- |' * len(headings)}",
    ]
    for report in comparison.reports:
        ratio = report.mean_wait_s / fifo.mean_wait_s if fifo.mean_wait_s else 1.0
        cells = [
            report.strategy,
            f"{report.mean_wait_s:,.0f} s",
            f"{ratio:.2f}x",
            f"{report.p95_wait_s:,.0f} s",
            f"{report.urgent_wait_s:,.0f} s",
            f"{report.longest_wait_s:,.0f} s",
            str(report.starved),
            f"{report.missed_deadlines} of {report.deadlines}" if report.deadlines else "",
            f"{report.makespan_s / 3600:,.1f} h",
            f"{report.slot_utilisation:.0%}",
            *(f"{report.pool_utilisation[pool]:.0%}" for pool in pools),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Recommended: {comparison.reason}", "", *(f"![{chart}]({chart})" for chart in charts)]
    return "\n".join(lines)


def draw_charts(scenario: Scenario, schedules: list[Schedule], comparison: Comparison, folder: Path) -> list[str]:
    """Write the charts of a scenario; answers their names."""
    charts = {f"scheduling-{scenario.name}-waits.svg": waits_chart(comparison.reports)}
    if scenario.capacity:
        worst = max(schedules[0].outcomes, key=lambda outcome: outcome.wait_s)
        charts |= {
            f"scheduling-{scenario.name}-{schedule.strategy}.svg": timeline_chart(schedule, since=worst.job.arrival)
            for schedule in schedules
            if schedule.strategy in {"priority", "resource_aware"}
        }
    for name, svg in charts.items():
        (folder / name).write_text(svg + "\n", encoding="utf-8")
    return list(charts)


def main() -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="runs of each workload")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--page", type=Path, default=PAGE, help="the table is kept there, the charts beside it")
    options = parser.parse_args()
    sections = [f"Seed {options.seed}, aging interval {AGING_INTERVAL_S:g} s. Starved: waited over {STARVING_S:g} s."]
    options.page.parent.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        began = time.perf_counter()
        schedules = simulate_all(workload(scenario, options.jobs, options.seed), aging_interval_s=AGING_INTERVAL_S)
        comparison = compare(schedules, starving_s=STARVING_S)
        print(f"{scenario.name}: {time.perf_counter() - began:.1f} s; {comparison.reason}")
        charts = draw_charts(scenario, schedules, comparison, options.page.parent)
        sections.append(section(scenario, options.jobs, comparison, charts))
    keep_on_page("\n\n".join(sections), options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
