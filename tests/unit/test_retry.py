"""Backoff and jitter are arithmetic: whether and when a failed attempt is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow import FlowExecutor
from contexten.extensions.flow.definition import Retry
from contexten.extensions.flow.recovery.retry import RetryPolicy


def middle() -> float:
    return 0.5


def delays(policy: RetryPolicy, tries: int) -> list[float]:
    return [policy.decide("network", number, middle).delay_s for number in range(1, tries + 1)]


def test_the_delay_grows_by_the_factor_up_to_its_bound() -> None:
    policy = RetryPolicy(max_attempts=99, delay_s=1, backoff=2, max_delay_s=10)
    assert delays(policy, 6) == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads_the_delay_evenly_around_it() -> None:
    policy = RetryPolicy(max_attempts=9, delay_s=10, jitter=0.2, max_delay_s=60)
    low, high = (policy.decide("network", 1, lambda draw=draw: draw).delay_s for draw in (0.0, 1.0))  # type: ignore[misc]  # a lambda's default has no type
    assert low == pytest.approx(8)
    assert high == pytest.approx(12)


def test_all_tries_count_the_first_one_too() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert [policy.decide("network", number, middle).retry for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert policy.decide("network", 3, middle).reason == "all 3 attempts were made"


def test_invalid_is_never_retried_even_where_it_is_named() -> None:
    decision = RetryPolicy(max_attempts=9, on=frozenset({"invalid"})).decide("invalid", 1, middle)
    assert (decision.retry, decision.reason) == (False, "invalid errors are never retried")


def test_only_the_kinds_that_are_named_are_retried() -> None:
    policy = RetryPolicy(max_attempts=9, on=frozenset({"network"}))
    assert policy.decide("network", 1, middle).retry
    assert policy.decide("timeout", 1, middle).reason == "retry.on does not name timeout"


@given(
    attempt=st.integers(1, 10**6),
    delay_s=st.floats(0, 1e9),
    backoff=st.floats(1, 1000),
    max_delay_s=st.floats(0, 1e9),
    jitter=st.floats(0, 1),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_finite_not_negative_and_within_its_bound(
    attempt: int, delay_s: float, backoff: float, max_delay_s: float, jitter: float, draw: float
) -> None:
    policy = RetryPolicy(max_attempts=10**7, delay_s=delay_s, backoff=backoff, max_delay_s=max_delay_s, jitter=jitter)
    decision = policy.decide("network", attempt, lambda: draw)
    assert decision.retry
    assert 0 <= decision.delay_s <= max_delay_s


def test_a_tasks_retry_takes_the_number_of_tries_from_the_executor_where_it_says_none() -> None:
    default = FlowExecutor(max_retries=6, retry_delay=9).policy
    assert default.max_attempts == 7
    stated = RetryPolicy.of(Retry(delay_s=2, on=("network",)), default)
    assert (stated.max_attempts, stated.delay_s, stated.on) == (7, 2, frozenset({"network"}))
    assert RetryPolicy.of(Retry(max_attempts=2), default).max_attempts == 2


def test_an_executor_without_recovery_still_tries_again() -> None:
    assert FlowExecutor(max_retries=5, enable_recovery=False).policy.max_attempts == 6


@pytest.mark.parametrize("arguments", [{"max_retries": -1}, {"retry_delay": -0.1}])
def test_an_executor_refuses_negative_numbers(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="from 0"):
        FlowExecutor(**arguments)  # type: ignore[arg-type]  # one of the two
