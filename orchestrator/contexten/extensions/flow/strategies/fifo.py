"""First in, first out."""

from __future__ import annotations

from .in_order import InOrder
from .protocol import QueuedRun


class Fifo(InOrder):
    """Runs start in the order in which they were submitted; priorities do not count."""

    name = "fifo"

    def key(self, run: QueuedRun) -> float:
        """The time of submission, in seconds since the epoch."""
        return run.enqueued_at
