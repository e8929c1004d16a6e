"""By priority, with aging so that none starves."""

from __future__ import annotations

from .in_order import InOrder
from .protocol import QueuedRun


class Priority(InOrder):
    """More urgent runs start first; waiting makes a run more urgent by one level each `aging_interval_s` seconds.

    Aging (A. Silberschatz, P. Galvin, G. Gagne, "Operating System Concepts", on priority scheduling): the effective
    priority of a run at time t is priority - (t - enqueued_at) / aging_interval_s. All runs age at the same rate, so
    the order of two never changes, and a key fixed at submission orders them: enqueued_at + priority *
    aging_interval_s. A run of priority p is passed by none of priority q that comes (p - q) * aging_interval_s later.
    """

    name = "priority"

    def __init__(self, aging_interval_s: float) -> None:
        self._aging_interval_s = aging_interval_s

    def key(self, run: QueuedRun) -> float:
        """When a run of priority 0 would have had to be submitted to be its equal, in seconds since the epoch."""
        return run.enqueued_at + run.priority * self._aging_interval_s
