"""What was committed, by this process and by others, told to who must know: once, and in order."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from .answers import Answers
from .clock import Clock
from .errors import FlowError
from .execution.conductor import Conductor
from .store import Committed, Event, Store
from .store.sql import SQL
from .watching import Watchers, changes_of

logger = logging.getLogger(__name__)

FOLLOW_S = 0.15  # between looks at what other processes wrote
PAGE = 1000  # entries of one look


class Feed:
    """Follows the journal of one store. Used on its event loop only."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        answers: Answers,
        watchers: Watchers,
        on_foreign: Callable[[list[Event]], Awaitable[None]],
    ) -> None:
        """`on_foreign` hears of other processes' entries before they are announced."""
        self._store = store
        self._clock = clock
        self._answers = answers
        self._watchers = watchers
        self._on_foreign = on_foreign
        self.conductor: Conductor | None = None
        """Hears of every entry, where this process drives."""
        self._seen = 0
        """The place in the journal up to which everything was announced."""
        self._own: list[tuple[int, int]] = []
        """Entries after it that this process wrote, and announced."""

    async def begin(self) -> None:
        """What is in the journal now is not news."""
        last = await self._store.row(SQL["last_event"])
        self._seen = int(last[0]) if last else 0

    def committed(self, committed: Committed) -> None:
        """This process committed a group."""
        if not committed.events:
            return
        first, last = committed.events[0].seq, committed.events[-1].seq
        if first == self._seen + 1:
            self._seen = last
        else:  # another process wrote between: `look` reads that, and passes over ours
            self._own.append((first, last))
        self._announce(committed.events)

    async def follow(self) -> None:
        """Hear what other processes write, until cancelled."""
        while True:
            await self._clock.sleep(FOLLOW_S)
            try:
                await self._look()
            except FlowError as error:
                logger.warning("the journal could not be read: %s", error)

    async def _look(self) -> None:
        last = await self._store.row(SQL["last_event"])
        if last is None or int(last[0]) <= self._seen:
            return
        is_full = True
        while is_full:
            rows = await self._store.rows(SQL["read_events"], (self._seen, PAGE))
            is_full = len(rows) == PAGE
            await self._hear([Event(*row) for row in rows if row["seq"] > self._seen])

    async def _hear(self, events: list[Event]) -> None:
        if not events:
            return
        self._seen = max(self._seen, events[-1].seq)
        own, self._own = self._own, [pair for pair in self._own if pair[1] > self._seen]
        events = [event for event in events if not any(first <= event.seq <= last for first, last in own)]
        await self._on_foreign(events)
        self._announce(events)

    def _announce(self, events: list[Event]) -> None:
        if self.conductor is not None:
            for event in events:
                self.conductor.heard(event)
            self.conductor.after_commit()
        self._watchers.announce(changes_of(events, self._answers.cursor))
