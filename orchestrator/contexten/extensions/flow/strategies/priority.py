"""By priority, with aging so that none starves."""

from __future__ import annotations


class Priority:
    """More urgent runs start first; waiting makes a run more urgent by one level each `aging_interval_s` seconds.

    Aging (A. Silberschatz, P. Galvin, G. Gagne, "Operating System Concepts", on priority scheduling): the effective
    priority of a run at time t is priority - (t - enqueued_at) / aging_interval_s. All runs age at the same rate, so
    the
    order of two never changes, and a key fixed at submission orders them: enqueued_at + priority * aging_interval_s.
    """

    name = "priority"

    def __init__(self, aging_interval_s: float) -> None:
        self._aging_interval_s = aging_interval_s

    def key(self, *, enqueued_at: float, priority: int) -> float:
        """The time at which a run of priority 0 would have had to be submitted to be its equal."""
        return enqueued_at + priority * self._aging_interval_s
