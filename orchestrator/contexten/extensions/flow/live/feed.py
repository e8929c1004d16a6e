"""What was committed, by this process and by others, told to who must know: once, and in order.

What this process writes is told at its commit, also while older entries of others are not read yet.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from ..answers.reading import Answers
from ..clock import Clock
from ..errors import FlowError
from ..execution.conductor import Conductor
from ..store import Committed, Event, Store
from ..store.sql import SQL
from .watching import Change, Watchers, changes_of

logger = logging.getLogger(__name__)

FOLLOW_S = 0.15  # between looks at what other processes wrote
PAGE = 1000  # entries of one look
MAX_MISSED = 5000  # entries that are read for who comes back


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
        conductor: Callable[[], Conductor | None],
    ) -> None:
        """`on_foreign` hears of other processes' entries before they are announced. Where it raises they are announced
        all the same, and it is called again, with what is new since, until it does not. `conductor` answers who hears
        of every entry, where this process drives."""
        self._store = store
        self._clock = clock
        self._answers = answers
        self._watchers = watchers
        self._on_foreign = on_foreign
        self._conductor = conductor
        self.seen = 0
        """The place in the journal up to which everything was announced."""
        self._own: list[tuple[int, int]] = []
        """Entries after it that this process wrote, and announced."""
        self._held: list[Committed] | None = None
        """What this process committed while others' entries, read before, are about to be announced."""
        self._is_due = False
        """Whether `on_foreign` raised and must be called again."""
        self._listeners: dict[object, Callable[[Sequence[Event]], None]] = {}
        """Who hears of each commit of this process."""

    def listen(self, listener: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        """Call `listener` with the entries of each commit of this process, once and in order, before those go on who
        wait for it; answers how to stop."""
        token = object()
        self._listeners[token] = listener

        def stop() -> None:
            self._listeners.pop(token, None)

        return stop

    async def begin(self) -> None:
        """What is in the journal now is not news."""
        last = await self._store.row(SQL["last_event"])
        self.seen = int(last[0]) if last else 0

    async def changes(self, since: str) -> list[Change] | None:
        """What changed after a place, gathered by run and flow; None where entries after it were pruned, it is of
        another database, or too much changed to tell."""
        after, reset = await self._answers.place(since)
        rows = [] if reset else await self._store.rows(SQL["read_changes"], (after, MAX_MISSED + 1))
        return None if reset or len(rows) > MAX_MISSED else changes_of(rows, self._answers.cursor)

    def committed(self, committed: Committed) -> None:
        """This process committed a group."""
        for listener in list(self._listeners.values()):
            try:
                listener(committed.events)
            except Exception:
                logger.exception("a listener raised")
        if self._held is not None:
            self._held.append(committed)
        else:
            self._tell(committed)

    def _tell(self, committed: Committed) -> None:
        events = [event for event in committed.events if event.seq > self.seen]  # `look` may have read them before
        if not events:
            return
        first, last = events[0].seq, events[-1].seq
        if first == self.seen + 1:
            self.seen = last
        else:  # another process wrote between: `look` reads that, and passes over ours
            self._own.append((first, last))
        self._announce(events)

    async def follow(self) -> None:
        """Hear what other processes write, until cancelled."""
        while True:
            await self._clock.sleep(FOLLOW_S)
            try:
                await self._look()
            except FlowError as error:
                logger.warning("the journal could not be read: %s", error)
            except Exception:
                logger.exception("the journal could not be followed and will be looked at again")

    async def _look(self) -> None:
        if self._is_due:
            await self._heed([])
        last = await self._store.row(SQL["last_event"])
        if last is None or int(last[0]) <= self.seen:
            return
        is_full = True
        while is_full:
            rows = await self._store.rows(SQL["read_events"], (self.seen, PAGE))
            is_full = len(rows) == PAGE
            await self._hear([Event(*row) for row in rows if row["seq"] > self.seen])

    async def _hear(self, events: list[Event]) -> None:
        if not events:
            return
        foreign = [event for event in events if not any(first <= event.seq <= last for first, last in self._own)]
        self._held = []
        try:
            await self._heed(foreign)
        finally:
            self._announce(foreign)
            self.seen = events[-1].seq
            self._own = [pair for pair in self._own if pair[1] > self.seen]
            held, self._held = self._held, None
            for committed in held:
                self._tell(committed)

    async def _heed(self, foreign: list[Event]) -> None:
        try:
            await self._on_foreign(foreign)
        except Exception:
            if not self._is_due:  # else it was said
                logger.exception("what other processes changed could not be taken in yet and will be tried again")
            self._is_due = True
        else:
            self._is_due = False

    def _announce(self, events: list[Event]) -> None:
        conductor = self._conductor()
        if conductor is not None:
            for event in events:
                try:
                    conductor.heard(event)
                except Exception:  # one entry must not keep the others from being heard
                    logger.exception("the journal's entry %d (%s) could not be heard", event.seq, event.type)
            try:
                conductor.after_commit()
            except Exception:
                logger.exception("the queue could not be looked at")
        self._watchers.announce(changes_of(events, self._answers.cursor))
