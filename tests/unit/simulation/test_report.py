"""The figures are what the schedules show, and the recommendation follows from them."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.simulation import Comparison, Job, Workload, compare, simulate, simulate_all
from contexten.extensions.flow.strategies import Fifo, RunningRun


def compared(*jobs: Job, slots: int = 1, starving_s: float = 3600, **capacity: float) -> Comparison:
    workload = Workload(jobs=jobs, slots=slots, capacity=capacity)
    return compare(simulate_all(workload, aging_interval_s=60), starving_s=starving_s)


def test_the_figures_of_a_schedule_by_hand() -> None:
    jobs = [
        Job(run_id="a", arrival=0, duration_s=10, priority=1, demands={"gpu": 1}),
        Job(run_id="b", arrival=0, duration_s=10, priority=0, deadline=20),
        Job(run_id="c", arrival=5, duration_s=20, deadline=30, demands={"gpu": 8}),
    ]
    workload = Workload(jobs=jobs, slots=1, capacity={"gpu": 2})
    report = compare([simulate(workload, Fifo())], starving_s=10).reports[0]
    assert (report.strategy, report.runs) == ("fifo", 3)
    assert report.mean_wait_s == pytest.approx(25 / 3)
    assert report.p95_wait_s == pytest.approx(14.5)  # between 10 and 15, nine tenths of the way
    assert report.urgent_wait_s == 10
    assert (report.longest_wait_s, report.starved) == (15, 1)
    assert report.makespan_s == 40
    assert (report.deadlines, report.missed_deadlines) == (2, 1)
    assert report.slot_utilisation == 1
    assert report.pool_utilisation == {"gpu": pytest.approx((10 * 1 + 20 * 2) / (40 * 2))}


def test_what_ran_before_counts_as_use_from_the_beginning_on() -> None:
    running = [RunningRun(run_id="r", demands={"gpu": 1}, expected_end=110)]
    jobs = [Job(run_id="a", arrival=90, duration_s=10)]
    workload = Workload(jobs=jobs, slots=2, capacity={"gpu": 1}, running=running, begin=100)
    report = compare([simulate(workload, Fifo())]).reports[0]
    assert (report.slot_utilisation, report.pool_utilisation["gpu"]) == (1, 1)
    assert report.mean_wait_s == 10


def test_where_nobody_waits_the_simplest_is_recommended() -> None:
    comparison = compared(Job(run_id="a", arrival=0, duration_s=10))
    assert comparison.recommended == "fifo"
    assert "do as well, and fifo is simpler" in comparison.reason


def test_missed_deadlines_count_most() -> None:
    comparison = compared(
        Job(run_id="a", arrival=0, duration_s=10),
        Job(run_id="urgent", arrival=1, duration_s=10, priority=0),
        Job(run_id="due", arrival=2, duration_s=10, estimate_s=10, deadline=20, priority=4),
    )
    assert comparison.recommended == "deadline_aware"
    assert comparison.reason == "deadline_aware: missed deadlines 0 (fifo: 1)."


def test_the_wait_of_the_most_urgent_counts_next() -> None:
    jobs = [Job(run_id=f"low{n}", arrival=n / 10, duration_s=10, priority=4) for n in range(5)]
    comparison = compared(*jobs, Job(run_id="high", arrival=1, duration_s=10, priority=0))
    assert comparison.recommended == "priority"
    assert comparison.reason == (
        "priority: mean wait of the most urgent runs 9 s (fifo: 49 s); "
        "resource_aware, load_balanced do as well, and priority is simpler."
    )


def test_backfill_is_recommended_where_it_shortens_the_wait() -> None:
    comparison = compared(
        Job(run_id="holds", arrival=0, duration_s=100, estimate_s=100, demands={"gpu": 1}),
        Job(run_id="blocked", arrival=1, duration_s=10, estimate_s=10, demands={"gpu": 2}),
        Job(run_id="small", arrival=2, duration_s=10, estimate_s=10),
        slots=2,
        gpu=2,
    )
    assert comparison.recommended == "resource_aware"
    assert "mean wait" in comparison.reason


def test_differences_that_nobody_feels_decide_nothing() -> None:
    jobs = [Job(run_id="a", arrival=0, duration_s=10), Job(run_id="b", arrival=9.95, duration_s=10, priority=3)]
    comparison = compared(*jobs, Job(run_id="c", arrival=9.96, duration_s=0.01, priority=0))
    assert comparison.recommended == "priority"
    assert compared(*jobs).recommended == "fifo"


def test_nothing_is_recommended_where_nothing_ran() -> None:
    comparison = compared()
    assert comparison.recommended is None
    assert comparison.reports[0].mean_wait_s == 0
    assert comparison.reports[0].slot_utilisation == 0
