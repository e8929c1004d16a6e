"""Whatever arrives and however long it takes: every run starts, in the strategy's order, within slots and pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contexten.extensions.flow.simulation import Job, Outcome, Workload, compare, simulate, simulate_all
from contexten.extensions.flow.strategies import (
    QueuedRun,
    ResourceAware,
    RunningRun,
    SchedulingStrategy,
    Situation,
    Strategy,
    strategy_named,
)

AGING_S = 10.0
CAPACITY = {"a": 4.0, "b": 2.0}
EVERY: list[Strategy] = [strategy_named(name, aging_interval_s=AGING_S) for name in SchedulingStrategy]
IN_ORDER = [strategy for strategy in EVERY if strategy.look_ahead == 0]
each = pytest.mark.parametrize("strategy", EVERY, ids=lambda strategy: strategy.name)
each_in_order = pytest.mark.parametrize("strategy", IN_ORDER, ids=lambda strategy: strategy.name)

demands = st.dictionaries(st.sampled_from(["a", "b", "undeclared"]), st.integers(0, 5).map(float), max_size=2)


@st.composite
def workloads(draw: st.DrawFn, *, demands: st.SearchStrategy[dict[str, float]] = demands) -> Workload:
    jobs = []
    for number in range(draw(st.integers(0, 20))):
        arrival = draw(st.integers(0, 40))
        duration_s = draw(st.integers(0, 20))
        jobs.append(
            Job(
                run_id=f"run_{number}",
                arrival=arrival,
                duration_s=duration_s,
                estimate_s=draw(st.sampled_from([None, duration_s, 2 * duration_s, duration_s / 2])),
                priority=draw(st.integers(0, 4)),
                deadline=draw(st.none() | st.integers(0, 100).map(float)),
                demands=draw(demands),
            )
        )
    return Workload(jobs=jobs, slots=draw(st.integers(1, 4)), capacity=CAPACITY)


def under_way(outcomes: Sequence[Outcome], at: float) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.start <= at < outcome.end]


def queued(job: Job) -> QueuedRun:
    return QueuedRun(
        run_id=job.run_id,
        seq=0,
        enqueued_at=job.arrival,
        priority=job.priority,
        deadline=job.deadline,
        estimate_s=job.estimate_s,
        demands=job.demands,
    )


@each
@given(workload=workloads())
def test_every_run_starts_once_after_it_came_and_keeps_its_slot_to_its_end(
    strategy: Strategy, workload: Workload
) -> None:
    outcomes = simulate(workload, strategy).outcomes
    assert sorted(outcome.job.run_id for outcome in outcomes) == sorted(job.run_id for job in workload.jobs)
    for outcome in outcomes:
        assert outcome.start >= outcome.job.arrival
        assert outcome.end == outcome.start + outcome.job.duration_s
        assert 0 <= outcome.slot < workload.slots
        together = under_way(outcomes, outcome.start)
        assert len({other.slot for other in together}) == len(together)


@each
@given(workload=workloads())
def test_a_pool_is_never_exceeded_but_by_one_run_that_has_it_alone(strategy: Strategy, workload: Workload) -> None:
    outcomes = simulate(workload, strategy).outcomes
    for outcome in outcomes:
        together = under_way(outcomes, outcome.start)
        for pool in ("a", "b", "undeclared"):
            held = [amount for other in together if (amount := other.job.demands.get(pool, 0.0)) > 0]
            assert len(held) <= 1 or sum(held) <= CAPACITY.get(pool, 0.0)


@each
@given(workload=workloads())
def test_the_same_workload_gives_the_same_schedule(strategy: Strategy, workload: Workload) -> None:
    assert simulate(workload, strategy) == simulate(workload, strategy)


@each_in_order
@given(workload=workloads())
def test_nobody_starts_before_a_run_with_a_lower_key_that_waits(strategy: Strategy, workload: Workload) -> None:
    outcomes = simulate(workload, strategy).outcomes
    for number, outcome in enumerate(outcomes):
        later = [other for other in outcomes[number + 1 :] if other.job.arrival <= outcome.start]
        assert all(strategy.key(queued(outcome.job)) <= strategy.key(queued(other.job)) for other in later)


@each
@given(workload=workloads(demands=st.just({})))
def test_a_free_slot_never_stays_empty_while_somebody_waits(strategy: Strategy, workload: Workload) -> None:
    outcomes = simulate(workload, strategy).outcomes
    for outcome in outcomes:
        if outcome.wait_s > 0:
            busy = [other for other in outcomes if other.start < outcome.start <= other.end]
            assert len(busy) >= workload.slots


@pytest.mark.parametrize("name", ["priority", "load_balanced"])
@given(workload=workloads())
def test_none_starves_who_comes_late_enough_waits_however_urgent(name: str, workload: Workload) -> None:
    outcomes = simulate(workload, strategy_named(name, aging_interval_s=AGING_S)).outcomes
    for first in outcomes:
        for second in outcomes:
            bound = first.job.arrival + max(0, first.job.priority - second.job.priority) * AGING_S
            if second.job.arrival > bound:
                assert second.start >= first.start


@st.composite
def tight_demands(draw: st.DrawFn) -> dict[str, float]:
    """Such that a few fill a pool."""
    return {pool: float(draw(st.integers(0, size + 1))) for pool, size in (("a", 4), ("b", 2)) if draw(st.booleans())}


runs = st.lists(st.tuples(tight_demands(), st.none() | st.integers(1, 12)), min_size=2, max_size=10)
holders = st.lists(st.tuples(tight_demands(), st.sampled_from([True, True, False]), st.integers(1, 12)), max_size=5)


def fits(needed: Mapping[str, float], held: Sequence[Mapping[str, float]]) -> bool:
    """Told apart from the code under test: by amounts, where that counts by shares."""
    for pool, amount in needed.items():
        others = [other[pool] for other in held if other.get(pool, 0.0) > 0]
        if amount > 0 and others and amount + sum(others) > CAPACITY.get(pool, 0.0):
            return False
    return True


def first_start(head: QueuedRun, held: Sequence[tuple[float, Mapping[str, float]]], slots: int) -> float:
    """When the head can start if nobody else does; held are ends and demands."""
    for at in sorted({0.0, *(end for end, _ in held if end < math.inf)}):
        left = [demands for end, demands in held if end > at]
        if len(left) < slots and fits(head.demands, left):
            return at
    return math.inf


@settings(max_examples=600)  # few of them have a run that could pass, and must not
@given(queue=runs, running=holders, free=st.integers(1, 4))
def test_backfill_never_delays_the_reserved_start_of_the_first_blocked_run(
    queue: list[tuple[dict[str, float], int | None]], running: list[tuple[dict[str, float], bool, int]], free: int
) -> None:
    for place in range(len(running) - 1, -1, -1):
        if not fits(running[place][0], [held for held, _, _ in running[:place]]):
            del running[place]
    slots = free + len(running)
    waiting = [
        QueuedRun(run_id=str(number), seq=number, enqueued_at=0, priority=2, estimate_s=estimate_s, demands=demanded)
        for number, (demanded, estimate_s) in enumerate(queue)
    ]
    situation = Situation(
        now=0,
        free_slots=free,
        running=[
            RunningRun(run_id=f"r{number}", demands=held, expected_end=end if is_known else None)
            for number, (held, is_known, end) in enumerate(running)
        ],
        capacity=CAPACITY,
    )
    started = ResourceAware(60).admit(waiting, situation)
    head = next((run for run in waiting if run not in started), None)
    if head is None:
        return
    place = waiting.index(head)

    def held_by(
        starting: Sequence[QueuedRun], end_of: Callable[[bool, int], float]
    ) -> list[tuple[float, dict[str, float]]]:
        return [
            *((end_of(is_known, end), held) for held, is_known, end in running),
            *((math.inf if run.estimate_s is None else run.estimate_s, dict(run.demands)) for run in starting),
        ]

    ahead = [run for run in started if waiting.index(run) < place]
    reserved = first_start(head, held_by(ahead, lambda is_known, end: end if is_known else math.inf), slots)
    truly = first_start(head, held_by(ahead, lambda _, end: end), slots)
    assert first_start(head, held_by(started, lambda _, end: end), slots) <= (
        reserved if reserved < math.inf else truly
    )


@given(workload=workloads())
def test_with_exact_estimates_the_first_blocked_run_starts_as_if_none_had_passed_it(workload: Workload) -> None:
    jobs = [
        Job(run_id=job.run_id, arrival=0, duration_s=job.duration_s, estimate_s=job.duration_s, demands=job.demands)
        for job in workload.jobs
    ]
    at_once = Workload(jobs=jobs, slots=workload.slots, capacity=CAPACITY)
    plain, filled = (
        {
            outcome.job.run_id: outcome.start
            for outcome in simulate(at_once, strategy_named(name, aging_interval_s=60)).outcomes
        }
        for name in ("priority", "resource_aware")
    )
    blocked = next((job.run_id for job in jobs if plain[job.run_id] > 0), None)
    if blocked is not None:
        assert filled[blocked] <= plain[blocked]


@given(workload=workloads())
def test_a_comparison_counts_all_runs_and_recommends_one_of_the_strategies(workload: Workload) -> None:
    comparison = compare(simulate_all(workload, aging_interval_s=AGING_S))
    assert [report.strategy for report in comparison.reports] == [str(name) for name in SchedulingStrategy]
    for report in comparison.reports:
        assert report.runs == len(workload.jobs)
        assert 0 <= report.mean_wait_s <= report.longest_wait_s
        assert 0 <= report.slot_utilisation <= 1 + 1e-9
        assert all(0 <= part <= 1 + 1e-9 for part in report.pool_utilisation.values())
    assert (comparison.recommended is None) == (not workload.jobs)
