"""The page of the strategies can be made again from its seed, and ten thousand runs are no burden."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.schedules import AGING_INTERVAL_S, SCENARIOS, draw_charts, section, workload

from contexten.extensions.flow.simulation import compare, simulate_all


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_is_the_same_for_the_same_seed_and_another_for_another(scenario: object) -> None:
    assert workload(scenario, 50, 1) == workload(scenario, 50, 1)  # type: ignore[arg-type] # parametrised
    assert workload(scenario, 50, 1) != workload(scenario, 50, 2)  # type: ignore[arg-type] # parametrised


def test_a_section_has_a_row_for_each_strategy_and_the_charts_that_it_names(tmp_path: Path) -> None:
    scenario = SCENARIOS[1]
    schedules = simulate_all(workload(scenario, 200), aging_interval_s=AGING_INTERVAL_S)
    comparison = compare(schedules)
    charts = draw_charts(scenario, schedules, comparison, tmp_path)
    text = section(scenario, 200, comparison, charts)
    assert all((tmp_path / chart).read_text(encoding="utf-8").startswith("<svg") for chart in charts)
    assert all(f"![{chart}]({chart})" in text for chart in charts)
    assert all(f"\n| {report.strategy} | " in text for report in comparison.reports)
    assert comparison.reason in text


def test_ten_thousand_runs_that_all_wait_at_once_are_replayed() -> None:
    scenario = SCENARIOS[1]
    crowded = workload(scenario, 10_000)
    assert sum(len(schedule.outcomes) for schedule in simulate_all(crowded, aging_interval_s=60)) == 50_000
