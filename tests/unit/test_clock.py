"""Identifiers and the real clock."""

from __future__ import annotations

import re

import anyio
import pytest

from contexten.extensions.flow.clock import SystemClock, make_id


def test_ids_have_their_prefix_and_one_length() -> None:
    assert re.fullmatch(r"run_[0-9a-hjkmnp-tv-z]{19}", make_id("run_"))
    assert re.fullmatch(r"srv_[0-9a-hjkmnp-tv-z]{19}", make_id("srv_", 0))


def test_ids_sort_by_the_time_they_were_made_at() -> None:
    times = [0.0, 0.001, 1.0, 1_700_000_000.0, 1_700_000_000.001, 4_000_000_000.0]
    ids = [make_id("run_", at) for at in times]
    assert ids == sorted(ids)


def test_ids_made_at_the_same_time_differ() -> None:
    assert len({make_id("run_", 1_700_000_000.0) for _ in range(1000)}) == 1000


@pytest.mark.anyio
async def test_the_system_clock_is_aware_and_does_not_go_back() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    with anyio.fail_after(30):
        await clock.sleep(-1)
        await clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.now().utcoffset() is not None
    assert all(0 <= clock.random() < 1 for _ in range(100))
