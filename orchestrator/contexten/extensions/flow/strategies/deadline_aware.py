"""By deadline: the run with the least slack first."""

from __future__ import annotations

from .in_order import InOrder
from .protocol import QueuedRun

UNDATED = 1e12
"""Seconds since the epoch, later than every date that a clock can tell; keys near it still differ by 0.2 ms."""


def slack_s(run: QueuedRun, now: float) -> float | None:
    """How many seconds the run may still wait and meet its deadline; negative where it will probably miss it, None
    without a deadline. An unknown duration counts as none: the slack is then what it is at most."""
    return None if run.deadline is None else run.deadline - (run.estimate_s or 0.0) - now


class DeadlineAware(InOrder):
    """Runs start by the latest time at which they must start; runs without a deadline after all that have one.

    Earliest deadline first (C. L. Liu, J. W. Layland, "Scheduling Algorithms for Multiprogramming in a
    Hard-Real-Time Environment", Journal of the ACM 20(1), 1973), corrected by the estimated duration to least slack
    first (A. K. Mok, "Fundamental Design Problems of Distributed Systems for the Hard-Real-Time Environment", MIT,
    1983). The slack of all waiting runs shrinks at the same rate, so a key fixed at submission orders them: deadline -
    estimate. Priorities do not count, and runs without a deadline wait as long as runs with one keep coming.
    """

    name = "deadline_aware"
    needs_estimates = True

    def key(self, run: QueuedRun) -> float:
        """The latest start that meets the deadline, in seconds since the epoch."""
        slack = slack_s(run, now=0.0)
        return UNDATED + run.enqueued_at if slack is None else slack
