"""Charts are SVG that shows every strategy and every run, and runs no script."""

from __future__ import annotations

import sys
from xml.etree import ElementTree as ET

import pytest

from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.simulation import Job, Workload, compare, simulate, simulate_all
from contexten.extensions.flow.simulation.plot import DRAWN, timeline_chart, waits_chart
from contexten.extensions.flow.strategies import Fifo, SchedulingStrategy

SVG = "{http://www.w3.org/2000/svg}"


def workload(jobs: int) -> Workload:
    made = [Job(run_id=str(number), arrival=number, duration_s=5, priority=number % 3) for number in range(jobs)]
    return Workload(jobs=made, slots=2)


def lines(svg: str) -> list[str]:
    """The runs drawn on the slots."""
    return [path.get("d", "") for path in ET.fromstring(svg).iter(f"{SVG}path") if "nofill" in path.get("class", "")]


def test_the_waits_of_every_strategy_are_drawn() -> None:
    svg = waits_chart(compare(simulate_all(workload(9), aging_interval_s=60)).reports)
    bars = [rect for rect in ET.fromstring(svg).iter(f"{SVG}rect") if "reactive" in rect.get("class", "")]
    assert len([bar for bar in bars if "rect reactive" in bar.get("class", "")]) == 3 * len(SchedulingStrategy)
    assert all(name in svg for name in SchedulingStrategy)


def test_a_timeline_has_a_line_for_each_run_and_a_colour_for_each_priority() -> None:
    svg = timeline_chart(simulate(workload(9), Fifo()))
    assert len(lines(svg)) == 9
    assert all(f">priority {level}<" in svg for level in range(3))


def test_a_timeline_may_begin_later_and_is_bounded() -> None:
    schedule = simulate(workload(DRAWN + 50), Fifo())
    assert len(lines(timeline_chart(schedule))) == DRAWN
    assert len(lines(timeline_chart(schedule, since=schedule.end - 6))) == 3


def test_nothing_to_draw_is_drawn() -> None:
    assert timeline_chart(simulate(workload(0), Fifo())).startswith("<svg")
    assert waits_chart(compare(simulate_all(workload(0), aging_interval_s=60)).reports).startswith("<svg")


def test_charts_load_and_run_nothing() -> None:
    svg = timeline_chart(simulate(workload(9), Fifo()))
    assert "xlink:href" not in svg
    assert "<script" not in svg


def test_a_missing_chart_library_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygal", None)
    with pytest.raises(FlowError, match="pygal") as caught:
        timeline_chart(simulate(workload(1), Fifo()))
    assert "contexten-flow[plot]" in str(caught.value.next)
