"""Entries of the journal that something is made of exactly once, whichever server makes it."""

from __future__ import annotations

from functools import partial

from ..clock import Clock
from ..store import Event, Store
from ..store.consumers import BEGUN, Take, advance, types_parameter
from ..store.sql import SQL
from .bell import Bell
from .turns import take_turns
from .watching import Change, Watchers

PAGE = 200  # entries taken in one transaction, so that those who work are not held up
STRIDE = 20_000  # entries looked through at once


class JournalConsumer:
    """Takes entries of the journal exactly once for a database, whichever server takes them: the place up to which they
    were taken moves in the transaction that records what was made of them.

    It takes what is entered after `store.consumers.begin` was called with its name, in the journal's order. Before
    that, and after `end`, it reads nothing and writes nothing. Used on the event loop only.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        watchers: Watchers,
        clock: Clock,
        *,
        types: frozenset[str],
        take: Take,
        entries: str = "read_entries_of",
    ) -> None:
        """`types` are the entries taken, such as `run.completed`; `take` runs on the store's thread. `entries` names
        the statement that reads them, which may pass over those of which nothing is ever made: they cost no commit."""
        self._name = name
        self._store = store
        self._watchers = watchers
        self._types = types
        self._take = take
        self._entries = SQL[entries]
        self._news = Bell(clock)
        self._has_begun = False
        """Whether anybody needs it, as far as this process knows."""
        self._looked = 0
        """The place up to which nothing is left to take."""

    async def run(self) -> None:
        """Take what is there and what comes, until cancelled. Woken by commits, those of other servers too."""
        await take_turns(
            self._catch_up,
            bell=self._news,
            watchers=self._watchers,
            heard=self._heard,
            failure="the journal could not be taken in",
        )

    def _heard(self, change: Change) -> None:
        types = change.types
        if (self._has_begun and not self._types.isdisjoint(types)) or BEGUN in types:
            self._news.ring()

    async def _catch_up(self) -> None:
        while (place := await self._place()) is not None:
            last = await self._store.row(SQL["last_event"])
            end = int(last[0]) if last else 0
            start = max(place, self._looked)
            if start >= end:
                return
            until = min(end, start + STRIDE)
            events = [
                Event(*row)
                for row in await self._store.rows(self._entries, (start, until, types_parameter(self._types), PAGE))
            ]
            to = events[-1].seq if len(events) == PAGE else until
            if (events or to - place >= STRIDE) and not await self._store.write(
                partial(advance, name=self._name, before=place, to=to, events=events, take=self._take)
            ):
                continue  # another server was first: from its place on
            self._looked = to

    async def _place(self) -> int | None:
        row = await self._store.row(SQL["consumer_place"], (self._name,))
        self._has_begun = row is not None
        if row is None:
            self._looked = 0
        return None if row is None else int(row[0])
