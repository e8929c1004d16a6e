"""The yardsticks measure what they say."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from benchmarks.ceiling import open_ceiling
from benchmarks.contestant import HUNDRED_CONCURRENT, ONE_STEP, SCENARIOS, TEN_STEPS, measure
from benchmarks.over_mcp import notification_delays
from benchmarks.queueing import measure as measure_queue
from benchmarks.sharing import takeover_ms

pytestmark = pytest.mark.anyio


async def test_the_ceiling_writes_a_row_for_every_step_it_acknowledged(tmp_path: Path) -> None:
    async with open_ceiling(tmp_path) as run_flow:
        for name in SCENARIOS:
            await measure(run_flow, name, seconds=0)

    with sqlite3.connect(tmp_path / "ceiling.sqlite3") as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT flow) FROM journal").fetchone()
    connection.close()
    # One round warms up, one is measured.
    assert rows == (2 * (1 + 10 + 1000), 2 * (1 + 1 + 100))


async def test_a_measurement_counts_whole_rounds_after_the_warming_one() -> None:
    flows: list[int] = []

    async def run_flow(steps: int) -> None:
        flows.append(steps)

    assert (await measure(run_flow, ONE_STEP, seconds=0))["flows"] == 1
    assert flows == [1, 1]
    assert (await measure(run_flow, TEN_STEPS, seconds=0))["flows"] == 1
    assert flows[2:] == [10, 10]
    assert (await measure(run_flow, HUNDRED_CONCURRENT, seconds=0))["flows"] == 100
    assert flows[4:] == [10] * 200


def test_a_notification_is_timed_from_the_first_change_of_its_burst() -> None:
    changes = [10.0, 10.01, 10.02, 11.0, 11.001]
    notified = [10.005, 10.105, 11.25]
    assert notification_delays(changes, notified) == pytest.approx([0.005, 0.25])


def test_a_change_that_nobody_heard_of_has_no_delay() -> None:
    assert notification_delays([10.0, 12.0], [10.5]) == pytest.approx([0.5])


async def test_the_queue_is_filled_drained_and_decided_upon(tmp_path: Path) -> None:
    found = await measure_queue(tmp_path, 500, 1_000)
    assert found.keys() >= {"enqueue_per_s", "drain_per_s", "long_us", "long_backfill_us", "restart_s"}
    assert all(value > 0 for value in found.values())


async def test_runs_of_a_killed_server_are_taken_over_while_it_is_timed(tmp_path: Path) -> None:
    assert len(await takeover_ms(tmp_path, kills=1)) == 1
