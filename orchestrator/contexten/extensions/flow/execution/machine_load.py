"""The machine's load, as a throttle reads it."""

from __future__ import annotations

import psutil

from ..clock import Clock

SAMPLE_S = 1.0  # psutil measures since it was last asked: over a few milliseconds it would answer noise


class MachineLoad:
    """How busy the processors are, over the last second at least."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._load = psutil.cpu_percent() / 100
        self._at = clock.monotonic()

    def read(self) -> float:
        """From 0 to 1."""
        now = self._clock.monotonic()
        if now - self._at >= SAMPLE_S:
            self._load = psutil.cpu_percent() / 100
            self._at = now
        return self._load
