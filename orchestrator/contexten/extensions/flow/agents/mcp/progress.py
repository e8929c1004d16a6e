"""What a server tells of a call under way, handed on to the run's journal."""

from __future__ import annotations

from ..protocol import AttemptContext

MAX_LINES = 100  # of one attempt; a server may tell far more
_MAX_CHARS = 500


class Progress:
    """The journal's side of one call."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._lines_left = MAX_LINES
        self._last = ""

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """Hand a notification on."""
        done = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
        self.tell(f"progress {done}: {message}" if message else f"progress {done}")

    def tell(self, line: str) -> None:
        """Hand a line on, unless it says again what the last one said or there were enough."""
        line = line[:_MAX_CHARS]
        if line != self._last and self._lines_left > 0:
            self._last = line
            self._lines_left -= 1
            self._context.log("info", line)
