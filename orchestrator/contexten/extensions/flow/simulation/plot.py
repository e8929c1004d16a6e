"""Charts of schedules as SVG, drawn by pygal (the extra `plot`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol
from xml.etree import ElementTree as ET

from ..errors import FlowError
from .simulate import Outcome, Schedule

SVG = "http://www.w3.org/2000/svg"

DRAWN = 400
"""Runs of a timeline: more are lines too thin to see, and a file too large to open."""


class Waits(Protocol):
    """What of a strategy's report is drawn; in seconds."""

    @property
    def strategy(self) -> str: ...
    @property
    def urgent_wait_s(self) -> float: ...
    @property
    def mean_wait_s(self) -> float: ...
    @property
    def p95_wait_s(self) -> float: ...


def waits_chart(reports: Sequence[Waits]) -> str:
    """The waits of each strategy beside each other: mean, of the most urgent runs, and the 95th percentile; seconds.

    Raises FlowError where pygal is not installed.
    """
    chart = _pygal().Bar(title="Wait for a slot", y_title="seconds", **_STYLE)
    chart.x_labels = [report.strategy for report in reports]
    chart.add("most urgent, mean", [round(report.urgent_wait_s, 2) for report in reports])
    chart.add("mean", [round(report.mean_wait_s, 2) for report in reports])
    chart.add("95th percentile", [round(report.p95_wait_s, 2) for report in reports])
    return _svg(chart)


def timeline_chart(schedule: Schedule, *, since: float | None = None) -> str:
    """Which run held which slot when: a line a slot, a colour a priority.

    The first 400 runs that end after `since` (in the workload's seconds; None: after the beginning) are drawn. Raises
    FlowError where pygal is not installed.
    """
    begin = schedule.workload.start if since is None else since
    outcomes = [outcome for outcome in schedule.outcomes if outcome.end > begin][:DRAWN]
    slots = schedule.workload.slots
    pygal = _pygal()
    chart = pygal.XY(
        title=f"Slots under {schedule.strategy}",
        x_title="seconds",
        allow_interruptions=True,
        show_dots=False,
        show_y_guides=False,
        range=(0, slots + 1),
        y_labels=list(range(1, slots + 1)) if outcomes else None,
        style=pygal.style.Style(stroke_width=f"{max(1.0, HEIGHT_OF_LINES / slots):.1f}"),
        **_STYLE,
    )
    for priority in sorted({outcome.job.priority for outcome in outcomes}):
        of_it = [outcome for outcome in outcomes if outcome.job.priority == priority]
        chart.add(f"priority {priority}", _segments(of_it, begin))
    return _svg(chart)


_STYLE: dict[str, Any] = {
    "no_prefix": True,
    "disable_xml_declaration": True,
    "width": 900,
    "height": 420,
}

HEIGHT_OF_LINES = 220  # of all slots together, in a chart of 420


def _segments(outcomes: Sequence[Outcome], begin: float) -> list[tuple[float, int] | None]:
    segments: list[tuple[float, int] | None] = []  # None lifts the pen
    for outcome in outcomes:
        line = outcome.slot + 1
        segments += [(max(0.0, outcome.start - begin), line), (outcome.end - begin, line), None]
    return segments


def _svg(chart: Any) -> str:
    """The picture without pygal's script and date: the same schedule gives the same text."""
    root = ET.fromstring(chart.render())  # noqa: S314 - pygal wrote it
    for parent in list(root.iter()):
        for script in parent.findall(f"{{{SVG}}}script"):
            parent.remove(script)
    ET.register_namespace("", SVG)
    return ET.tostring(root, encoding="unicode")


def _pygal() -> Any:
    try:
        import pygal
    except ImportError:
        raise FlowError(
            "Charts need pygal, which is not installed.",
            next="Install it with `pip install 'contexten-flow[plot]'`; the figures need nothing.",
        ) from None
    # Its finder of charts that live elsewhere has only the interface that Python has given up: others' imports warn.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("pygal")]
    return pygal
