"""Strategies are orders over keys that never change while a run waits, and say who starts of the first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.scheduling.priorities import FlowPriority, parse_priority
from contexten.extensions.flow.strategies import (
    AgentLoad,
    DeadlineAware,
    Fifo,
    LoadBalanced,
    Priority,
    QueuedRun,
    ResourceAware,
    RunningRun,
    SchedulingStrategy,
    Situation,
    Strategy,
    slack_s,
    strategy_named,
)

times = st.floats(0, 2e9)
levels = st.integers(-1000, 1000)


def queued(at: float, priority: int) -> QueuedRun:
    return QueuedRun(run_id="run_1", seq=1, enqueued_at=at, priority=priority)


@given(first=times, second=times, a=levels, b=levels)
def test_fifo_disregards_priorities(first: float, second: float, a: int, b: int) -> None:
    fifo = Fifo()
    assert (fifo.key(queued(first, a)) < fifo.key(queued(second, b))) == (first < second)


@given(at=times, a=levels, b=levels)
def test_of_two_runs_of_one_time_the_more_urgent_is_first(at: float, a: int, b: int) -> None:
    strategy = Priority(60)
    assert (strategy.key(queued(at, a)) < strategy.key(queued(at, b))) == (a < b)


@given(levels_apart=st.integers(0, 1000), interval=st.floats(0.1, 3600))
def test_none_starves_a_run_goes_before_every_more_urgent_one_that_comes_late_enough(
    levels_apart: int, interval: float
) -> None:
    strategy = Priority(interval)
    waiting = strategy.key(queued(0, levels_apart))
    assert waiting < strategy.key(queued(interval * levels_apart + 1, 0))


def test_waiting_one_interval_makes_up_for_one_level() -> None:
    strategy = Priority(60)
    assert strategy.key(queued(0, 3)) == strategy.key(queued(60, 2))


@pytest.mark.parametrize("name", ["fifo", "FIFO", "Fifo", SchedulingStrategy.FIFO])
def test_names_of_strategies_are_taken_in_any_case(name: str) -> None:
    assert strategy_named(name, aging_interval_s=60).name == "fifo"


@pytest.mark.parametrize("name", ["RESOURCE_AWARE", "load-balanced", SchedulingStrategy.DEADLINE_AWARE])
def test_every_strategy_is_made_by_its_name(name: str) -> None:
    assert strategy_named(name, aging_interval_s=60).name == SchedulingStrategy(name)


def test_an_unknown_strategy_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidArguments) as caught:
        strategy_named("prioritty", aging_interval_s=60)
    assert caught.value.issues[0].suggestion == "priority"


def run(name: str, *, estimate_s: float | None = None, **demands: float) -> QueuedRun:
    return QueuedRun(run_id=name, seq=1, enqueued_at=0, priority=2, estimate_s=estimate_s, demands=demands)


def holder(name: str, *, until: float | None, **demands: float) -> RunningRun:
    return RunningRun(run_id=name, expected_end=until, demands=demands)


def situation(*running: RunningRun, slots: int = 10, load: float | None = None, **capacity: float) -> Situation:
    return Situation(now=100, free_slots=slots, running=running, capacity=capacity, load=load)


def names(runs: list[QueuedRun]) -> list[str]:
    return [queued.run_id for queued in runs]


IN_ORDER: list[Strategy] = [Fifo(), Priority(60), LoadBalanced(60), DeadlineAware()]
EVERY = [*IN_ORDER, ResourceAware(60)]
each_in_order = pytest.mark.parametrize("strategy", IN_ORDER, ids=lambda strategy: strategy.name)
each = pytest.mark.parametrize("strategy", EVERY, ids=lambda strategy: strategy.name)


@each
def test_no_more_start_than_slots_are_free(strategy: Strategy) -> None:
    queue = [run("a", estimate_s=1), run("b", estimate_s=1), run("c", estimate_s=1)]
    assert names(strategy.admit(queue, situation(slots=2))) == ["a", "b"]
    assert strategy.admit(queue, situation(slots=0)) == []


@each
def test_a_pool_is_shared_up_to_its_size(strategy: Strategy) -> None:
    queue = [run("a", gpu=1), run("b", gpu=1), run("c", gpu=1)]
    assert names(strategy.admit(queue, situation(holder("r", until=None, gpu=1), gpu=3))) == ["a", "b"]


@each
def test_thirds_of_a_pool_fill_it(strategy: Strategy) -> None:
    queue = [run(name, gpu=0.1) for name in "abcd"]
    assert names(strategy.admit(queue, situation(gpu=0.3))) == ["a", "b", "c"]


@each_in_order
def test_none_passes_a_run_that_does_not_fit(strategy: Strategy) -> None:
    queue = [run("big", gpu=2), run("small", estimate_s=1)]
    assert strategy.admit(queue, situation(holder("r", until=110, gpu=1), gpu=2)) == []


@each
def test_who_demands_more_than_there_is_takes_the_pool_alone(strategy: Strategy) -> None:
    queue = [run("huge", gpu=5, tape=1), run("next", gpu=1)]
    assert names(strategy.admit(queue, situation(gpu=2))) == ["huge"]
    assert strategy.admit(queue, situation(holder("r", until=None, gpu=1), gpu=2)) == []
    assert strategy.admit(queue, situation(holder("r", until=None, tape=1), gpu=2)) == []


def test_slack_is_what_is_left_of_the_time_to_the_deadline_after_the_work() -> None:
    dated = QueuedRun(run_id="r", seq=1, enqueued_at=0, priority=2, deadline=500, estimate_s=120)
    assert slack_s(dated, now=300) == 80
    assert slack_s(dated, now=400) == -20
    assert slack_s(queued(0, 2), now=300) is None


def test_deadline_aware_takes_the_least_slack_first_and_the_undated_last_as_they_came() -> None:
    early = QueuedRun(run_id="early", seq=1, enqueued_at=9, priority=4, deadline=500)
    long = QueuedRun(run_id="long", seq=2, enqueued_at=9, priority=4, deadline=600, estimate_s=200)
    second, first = queued(1.8e9 + 0.001, 0), queued(1.8e9, 4)
    assert sorted([second, first, early, long], key=DeadlineAware().key) == [long, early, first, second]


def test_load_balanced_places_by_outstanding_complexity_per_capacity_where_a_place_is_free() -> None:
    agents = [
        AgentLoad(name="loaded", running=1, capacity=2, outstanding=8),
        AgentLoad(name="wide", running=3, capacity=4, outstanding=10),
        AgentLoad(name="full", running=1, capacity=1, outstanding=0.1),
        AgentLoad(name="closed", running=0, capacity=0, outstanding=0),
    ]
    assert LoadBalanced(60).place(agents) == 1
    assert LoadBalanced(60).place(agents[2:]) is None
    assert Priority(60).place(agents) == 0
    assert ResourceAware(60).place(agents[2:]) is None


BLOCKED = run("head", gpu=2)
"""Waits for both places of a pool of 2, of which one is free."""


def test_a_run_that_ends_before_the_reserved_start_passes() -> None:
    now = situation(holder("r", until=110, gpu=1), gpu=2)
    queue = [BLOCKED, run("late", estimate_s=10.5, gpu=1), run("in time", estimate_s=10, gpu=1)]
    assert names(ResourceAware(60).admit(queue, now)) == ["in time"]


def test_a_run_that_fits_beside_the_first_at_its_reserved_start_passes_however_long_it_takes() -> None:
    now = situation(holder("r", until=110, gpu=1), gpu=3)
    queue = [run("head", gpu=2.5), run("beside", estimate_s=1e6, gpu=0.5), run("one too many", estimate_s=1e6, gpu=0.5)]
    assert names(ResourceAware(60).admit(queue, now)) == ["beside"]


def test_the_slot_of_the_first_run_is_reserved_too() -> None:
    now = situation(holder("r", until=110, gpu=2), slots=1, gpu=2)
    queue = [BLOCKED, run("uses its slot", estimate_s=1e6), run("uses the other", estimate_s=1e6)]
    assert names(ResourceAware(60).admit(queue, now)) == ["uses its slot"]
    alone = situation(holder("r", until=None, gpu=2), slots=1, gpu=2)
    assert ResourceAware(60).admit(queue, alone) == []


def test_an_unknown_estimate_never_passes() -> None:
    now = situation(holder("r", until=110, gpu=1), gpu=2)
    assert ResourceAware(60).admit([BLOCKED, run("unknown")], now) == []


def test_when_the_reserved_start_is_unknown_only_what_the_first_does_not_need_is_given() -> None:
    now = situation(holder("r", until=None, gpu=1), gpu=2)
    queue = [BLOCKED, run("same pool", estimate_s=0.001, gpu=1), run("no pool", estimate_s=1e6)]
    assert names(ResourceAware(60).admit(queue, now)) == ["no pool"]


def test_who_should_have_ended_is_expected_at_any_moment() -> None:
    overdue = situation(holder("r", until=50, gpu=1), gpu=2)
    assert ResourceAware(60).admit([BLOCKED, run("short", estimate_s=0.001, gpu=1)], overdue) == []


def test_runs_admitted_in_the_same_decision_count_for_the_reservation() -> None:
    queue = [
        run("first", estimate_s=30, gpu=1),
        BLOCKED,
        run("short", estimate_s=30, gpu=1),
        run("long", estimate_s=31),
    ]
    assert names(ResourceAware(60).admit(queue, situation(slots=3, gpu=2))) == ["first", "short", "long"]
    assert names(ResourceAware(60).admit([*queue[:2], run("long", estimate_s=31, gpu=1)], situation(gpu=2))) == [
        "first"
    ]


def test_no_more_runs_than_the_look_ahead_are_looked_at() -> None:
    now = situation(holder("r", until=110, gpu=1), gpu=2)
    queue = [BLOCKED, run("unknown"), run("passes", estimate_s=1)]
    assert ResourceAware(60, look_ahead=1).admit(queue, now) == []
    assert names(ResourceAware(60, look_ahead=2).admit(queue, now)) == ["passes"]


def test_a_loaded_machine_starts_nothing_but_one_run_where_nothing_runs() -> None:
    queue = [run("a"), run("b")]
    strategy = ResourceAware(60)
    assert strategy.admit(queue, situation(holder("r", until=None), load=0.91)) == []
    assert names(strategy.admit(queue, situation(load=0.91))) == ["a"]
    assert names(strategy.admit(queue, situation(holder("r", until=None), load=0.9))) == ["a", "b"]


@pytest.mark.parametrize("value", [None, 2, "normal", " NORMAL ", FlowPriority.NORMAL])
def test_a_priority_is_a_number_or_a_name(value: object) -> None:
    assert parse_priority(value) == 2


def test_any_whole_number_is_a_priority() -> None:
    assert [parse_priority(value) for value in (-5, 0, 17)] == [-5, 0, 17]


@pytest.mark.parametrize("value", [True, 1.5, "urgent", [], 10**9])
def test_what_is_no_priority_is_refused(value: object) -> None:
    with pytest.raises(InvalidArguments) as caught:
        parse_priority(value)
    assert caught.value.issues[0].path == "/priority"
