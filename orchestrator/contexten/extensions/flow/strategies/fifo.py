"""First in, first out."""

from __future__ import annotations


class Fifo:
    """Runs start in the order in which they were submitted; priorities do not count."""

    name = "fifo"

    def key(self, *, enqueued_at: float, priority: int) -> float:
        """The time of submission."""
        return enqueued_at
