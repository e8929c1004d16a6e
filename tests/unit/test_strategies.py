"""Strategies are orders over keys that never change while a run waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.errors import InvalidArguments, NotAvailableYet
from contexten.extensions.flow.priorities import FlowPriority, parse_priority
from contexten.extensions.flow.strategies import Fifo, Priority, SchedulingStrategy, strategy_named

times = st.floats(0, 2e9)
levels = st.integers(-1000, 1000)


@given(first=times, second=times, a=levels, b=levels)
def test_fifo_disregards_priorities(first: float, second: float, a: int, b: int) -> None:
    fifo = Fifo()
    assert (fifo.key(enqueued_at=first, priority=a) < fifo.key(enqueued_at=second, priority=b)) == (first < second)


@given(at=times, a=levels, b=levels)
def test_of_two_runs_of_one_time_the_more_urgent_is_first(at: float, a: int, b: int) -> None:
    strategy = Priority(60)
    assert (strategy.key(enqueued_at=at, priority=a) < strategy.key(enqueued_at=at, priority=b)) == (a < b)


@given(levels_apart=st.integers(0, 1000), interval=st.floats(0.1, 3600))
def test_none_starves_a_run_goes_before_every_more_urgent_one_that_comes_late_enough(
    levels_apart: int, interval: float
) -> None:
    strategy = Priority(interval)
    waiting = strategy.key(enqueued_at=0, priority=levels_apart)
    assert waiting < strategy.key(enqueued_at=interval * levels_apart + 1, priority=0)


def test_waiting_one_interval_makes_up_for_one_level() -> None:
    strategy = Priority(60)
    assert strategy.key(enqueued_at=0, priority=3) == strategy.key(enqueued_at=60, priority=2)


@pytest.mark.parametrize("name", ["fifo", "FIFO", "Fifo", SchedulingStrategy.FIFO])
def test_names_of_strategies_are_taken_in_any_case(name: str) -> None:
    assert strategy_named(name, aging_interval_s=60).name == "fifo"


@pytest.mark.parametrize("name", ["RESOURCE_AWARE", "load-balanced", SchedulingStrategy.DEADLINE_AWARE])
def test_strategies_of_later_versions_are_refused_as_such(name: str) -> None:
    with pytest.raises(NotAvailableYet, match="fifo, priority"):
        strategy_named(name, aging_interval_s=60)


def test_an_unknown_strategy_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidArguments) as caught:
        strategy_named("prioritty", aging_interval_s=60)
    assert caught.value.issues[0].suggestion == "priority"


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
