"""The part of the slots that one of several servers fills before it leaves the queue to the others."""

from __future__ import annotations

from collections.abc import Callable

from .timers import Alarm, Timers

YIELD_S = 0.25  # others hear what was queued within 0.15 s, and claim it in a few milliseconds


class Share:
    """How many runs this server may take. Used on the event loop only."""

    def __init__(self, timers: Timers, on_turn: Callable[[], None]) -> None:
        """`on_turn` asks again for `room`, once the others have had their time."""
        self.servers = 1
        """Servers that drive the database, this one included."""
        self._timers = timers
        self._on_turn = on_turn
        self._pause: Alarm | None = None
        self._is_its_turn = False

    def has_room(self, held: int, slots: int) -> bool:
        """Whether a server that holds so many of all slots holds less than its share."""
        return held < -(-slots // self.servers)

    def room(self, held: int, slots: int) -> int:
        """How many more runs a server that holds so many of all slots may take now: what its share lacks; past its
        share all that is free, but only after a pause."""
        if self.has_room(held, slots):
            return -(-slots // self.servers) - held
        if held >= slots:
            return 0
        if self._is_its_turn:
            self._is_its_turn = False
            return slots - held
        if self._pause is None:
            self._pause = self._timers.after(YIELD_S, self._paused)
        return 0

    def _paused(self) -> None:
        self._pause = None
        self._is_its_turn = True
        self._on_turn()
        self._is_its_turn = False
