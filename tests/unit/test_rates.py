"""Rate limits: a burst, then evenly spaced tokens, and never more than that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.scheduling.rates import RateLimit, RateLimits


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("10/1s", RateLimit(10, 1)),
        ("100/m", RateLimit(100, 60)),
        ("1/500ms", RateLimit(1, 0.5)),
        (" 5 / 2.5 ", RateLimit(5, 2.5)),
        ("3/h", RateLimit(3, 3600)),
    ],
)
def test_a_rate_is_requests_an_interval(text: str, limit: RateLimit) -> None:
    assert RateLimit.parse(text) == limit
    assert RateLimit.parse(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "10", "10/", "/s", "0/s", "-1/s", "1/0s", "1/s/s", "1/d", "1/9999h", "x/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"10/1s|requests are from 1"):
        RateLimit.parse(text)


def test_a_full_bucket_gives_a_burst_and_then_a_token_each_interval_share() -> None:
    limits = RateLimits({"api": RateLimit(3, 6)})
    for _ in range(3):
        assert limits.next_token(["api"], 100.0) is None
        limits.take(["api"], 100.0)
    assert limits.next_token(["api"], 100.0) == ("api", 102.0)
    assert limits.next_token(["api"], 102.0) is None
    limits.take(["api"], 102.0)
    assert limits.next_token(["api"], 102.0) == ("api", 104.0)
    assert limits.next_token(["api"], 1000.0) is None


def test_a_task_of_several_limited_tools_waits_for_the_last_of_their_tokens() -> None:
    limits = RateLimits({"a": RateLimit(1, 2), "b": RateLimit(1, 5)})
    limits.take(["a", "b", "c"], 0.0)
    assert limits.next_token(["a", "b", "c"], 1.0) == ("b", 5.0)
    assert limits.next_token(["a"], 1.0) == ("a", 2.0)
    assert limits.next_token(["c"], 1.0) is None


def test_a_tool_that_a_task_names_twice_costs_one_token() -> None:
    limits = RateLimits({"a": RateLimit(2, 2)})
    limits.take(["a", "a"], 0.0)
    assert limits.next_token(["a"], 0.0) is None


def test_without_limits_there_is_nothing_to_ask() -> None:
    assert not RateLimits({})
    assert RateLimits({"a": RateLimit(1, 1)})


@given(
    requests=st.integers(1, 20),
    interval_s=st.floats(0.01, 100),
    pauses=st.lists(st.floats(0, 50), min_size=1, max_size=100),
)
def test_no_stretch_of_time_sees_more_than_a_burst_and_its_share(
    requests: int, interval_s: float, pauses: list[float]
) -> None:
    limits = RateLimits({"t": RateLimit(requests, interval_s)})
    now, taken = 0.0, []
    for pause in pauses:
        now += pause
        late = limits.next_token(["t"], now)
        if late is not None:
            assert late[1] > now
            now = late[1]  # it waits exactly until then
            assert limits.next_token(["t"], now) is None
        limits.take(["t"], now)
        taken.append(now)
    for i, first in enumerate(taken):
        for j in range(i, len(taken)):
            share = (taken[j] - first) * requests / interval_s
            assert j - i + 1 <= requests + share + 1e-3
