"""The seam of a scheduling strategy."""

from __future__ import annotations

from typing import Protocol


class Strategy(Protocol):
    """An order over the queue: lower keys start first, equal ones in the order of arrival."""

    name: str

    def key(self, *, enqueued_at: float, priority: int) -> float:
        """The key of a run; `enqueued_at` in seconds since the epoch, lower priorities are more urgent."""
        ...
