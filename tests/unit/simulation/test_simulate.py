"""The simulator goes from event to event and lets the strategy decide, as the scheduler does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from contexten.extensions.flow.simulation import Job, Schedule, Workload, simulate, simulate_all
from contexten.extensions.flow.strategies import (
    DeadlineAware,
    Fifo,
    Priority,
    QueuedRun,
    ResourceAware,
    RunningRun,
    SchedulingStrategy,
    Situation,
)


def job(name: str, arrival: float = 0, duration_s: float = 10, **more: object) -> Job:
    return Job(run_id=name, arrival=arrival, duration_s=duration_s, **more)  # type: ignore[arg-type] # shorthand


def starts(schedule: Schedule) -> dict[str, float]:
    return {outcome.job.run_id: outcome.start for outcome in schedule.outcomes}


def test_one_slot_runs_one_after_another_in_order_of_arrival() -> None:
    workload = Workload(jobs=[job("late", 3), job("early", 1), job("idle", 50)], slots=1)
    schedule = simulate(workload, Fifo())
    assert starts(schedule) == {"early": 1, "late": 11, "idle": 50}
    assert [outcome.wait_s for outcome in schedule.outcomes] == [0, 8, 0]
    assert schedule.end == 60


def test_runs_that_arrive_together_start_in_the_order_given() -> None:
    assert list(starts(simulate(Workload(jobs=[job("b"), job("a")], slots=1), Fifo()))) == ["b", "a"]


def test_who_arrives_when_another_ends_takes_part_in_that_decision() -> None:
    jobs = [job("first", priority=0), job("waits", 1, priority=4), job("urgent", 10, priority=0)]
    assert list(starts(simulate(Workload(jobs=jobs, slots=1), Priority(60)))) == ["first", "urgent", "waits"]


def test_runs_of_no_duration_all_run_at_once_on_one_slot() -> None:
    workload = Workload(jobs=[job(name, duration_s=0) for name in "abc"], slots=1)
    assert set(starts(simulate(workload, Fifo())).values()) == {0}


def test_the_lowest_free_slot_is_used() -> None:
    jobs = [job("a", 0, 5), job("b", 1, 20), job("c", 6, 5)]
    assert [outcome.slot for outcome in simulate(Workload(jobs=jobs, slots=3), Fifo()).outcomes] == [0, 1, 0]


def test_priorities_age_with_the_wait() -> None:
    jobs = [job("running"), job("old", 1, priority=1), job("new", 9, priority=0)]
    assert list(starts(simulate(Workload(jobs=jobs, slots=1), Priority(60)))) == ["running", "new", "old"]
    assert list(starts(simulate(Workload(jobs=jobs, slots=1), Priority(7)))) == ["running", "old", "new"]


def test_a_deadline_that_fifo_misses_is_met_by_least_slack() -> None:
    jobs = [job("running"), job("any time", 1), job("due", 2, deadline=20, estimate_s=10)]
    workload = Workload(jobs=jobs, slots=1)
    assert [outcome.is_late for outcome in simulate(workload, Fifo()).outcomes] == [False, False, True]
    assert [outcome.is_late for outcome in simulate(workload, DeadlineAware()).outcomes] == [False, False, False]


def test_backfill_uses_what_a_blocked_run_leaves_and_keeps_its_start() -> None:
    capacity = {"gpu": 2}
    jobs = [
        job("holds one", 0, 10, estimate_s=10, demands={"gpu": 1}),
        job("needs both", 1, 10, estimate_s=10, demands={"gpu": 2}),
        job("short", 2, 8, estimate_s=8, demands={"gpu": 1}),
        job("long", 2, 9, estimate_s=9, demands={"gpu": 1}),
    ]
    workload = Workload(jobs=jobs, slots=4, capacity=capacity)
    assert starts(simulate(workload, Priority(60))) == {"holds one": 0, "needs both": 10, "short": 20, "long": 20}
    assert starts(simulate(workload, ResourceAware(60))) == {"holds one": 0, "short": 2, "needs both": 10, "long": 20}


def test_strategies_know_estimates_and_never_durations() -> None:
    seen: list[tuple[float | None, float | None]] = []

    class Spy(Fifo):
        def admit(self, queue: Sequence[QueuedRun], situation: Situation) -> list[QueuedRun]:
            seen.append((queue[0].estimate_s, situation.running[0].expected_end if situation.running else None))
            return super().admit(queue, situation)

    simulate(Workload(jobs=[job("a", 0, 10, estimate_s=99), job("b", 1, 10)], slots=2), Spy())
    assert seen == [(99, None), (None, 99)]


def test_what_runs_at_the_beginning_holds_its_slot_and_pools_to_its_end() -> None:
    running = [RunningRun(run_id="r", demands={"gpu": 1}, expected_end=130)]
    jobs = [job("queued", 40, demands={"gpu": 1}), job("other", 41)]
    workload = Workload(jobs=jobs, slots=2, capacity={"gpu": 1}, running=running, begin=100)
    assert starts(simulate(workload, Fifo())) == {"queued": 130, "other": 130}
    narrow = Workload(jobs=jobs, slots=1, capacity={"gpu": 1}, running=running, begin=100)
    assert starts(simulate(narrow, Fifo())) == {"queued": 130, "other": 140}


def test_more_runs_than_slots_may_run_at_the_beginning() -> None:
    running = [RunningRun(run_id=f"r{end}", expected_end=end) for end in (10, 20, 30)]
    schedule = simulate(Workload(jobs=[job("a"), job("b")], slots=1, running=running), Fifo())
    assert starts(schedule) == {"a": 30, "b": 40}
    assert {outcome.slot for outcome in schedule.outcomes} == {0}


def test_a_strategy_that_starts_nothing_is_an_error_and_no_endless_loop() -> None:
    class Never(Fifo):
        def admit(self, queue: Sequence[QueuedRun], situation: Situation) -> list[QueuedRun]:
            return []

    with pytest.raises(RuntimeError, match="starts none of 1 runs"):
        simulate(Workload(jobs=[job("a")], slots=1), Never())


def test_all_strategies_are_replayed() -> None:
    schedules = simulate_all(Workload(jobs=[job("a")], slots=1), aging_interval_s=60)
    assert [schedule.strategy for schedule in schedules] == [str(name) for name in SchedulingStrategy]
