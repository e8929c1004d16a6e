"""The yardsticks of engines compare the same work, and tell a missed bar."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.contestant import ONE_STEP, RunFlow, measure
from benchmarks.engines.bare_mcp import open_mcp
from benchmarks.engines.ours import open_ours
from benchmarks.engines.yardsticks import Figures, compared_rows

CHEAP = Figures(task_ms=10, first_s=1, resident_mib=100)


def test_a_task_may_cost_five_milliseconds_more_or_a_tenth() -> None:
    def reached(bare_ms: float, ours_ms: float) -> bool:
        found = {"ours": replace(CHEAP, task_ms=ours_ms), "bare": replace(CHEAP, task_ms=bare_ms)}
        return all(row.ok for row in compared_rows("An engine", "its library", found))

    assert reached(10, 15)
    assert not reached(10, 15.1)
    assert reached(200, 220)
    assert not reached(200, 220.1)
    assert reached(200, 100)


@pytest.mark.anyio
async def test_ours_and_the_bare_client_call_the_same_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ENGINE", "mcp")

    async def check(run_flow: RunFlow) -> None:
        found = await measure(run_flow, ONE_STEP, seconds=0)
        assert isinstance(found["warm_up_s"], float)
        assert found["warm_up_s"] > 0

    for opened in (open_ours, open_mcp):
        folder = tmp_path / opened.__name__
        folder.mkdir()
        async with opened(folder) as run_flow:
            await check(run_flow)
