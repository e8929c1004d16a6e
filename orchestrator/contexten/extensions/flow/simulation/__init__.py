"""Discrete-event simulation of the queue: a workload replayed through strategies, compared, recommended and drawn.

The strategies are the scheduler's own. What a replay does not show: tasks within a run (so `load_balanced`, which
places them, is seen as the order by priority that it is), the machine's load, limits by flow and tag, retries.
"""

from __future__ import annotations

from .report import Comparison, StrategyReport, compare
from .simulate import Outcome, Schedule, simulate, simulate_all
from .workload import Job, Workload

__all__ = [
    "Comparison",
    "Job",
    "Outcome",
    "Schedule",
    "StrategyReport",
    "Workload",
    "compare",
    "simulate",
    "simulate_all",
]
