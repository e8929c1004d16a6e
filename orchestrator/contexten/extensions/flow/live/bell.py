"""A bell that wakes one sleeper, who may also have a time to wake at."""

from __future__ import annotations

import anyio

from ..clock import Clock


class Bell:
    """Rung while nobody waits, it wakes the next who does. Used on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake who waits."""
        self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Until it has rung since the last wait, or so long."""
        if seconds is None:
            await self._event.wait()
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(self._ring_in, seconds)
                await self._event.wait()
                group.cancel_scope.cancel()
        self._event = anyio.Event()

    async def rest(self, seconds: float) -> None:
        """So long, although it rings. Whoever rests looks afterwards at what it rang for: it need not ring again."""
        await self._clock.sleep(seconds)
        self._event = anyio.Event()

    async def _ring_in(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._event.set()
