"""What other processes wrote is heard once and in order, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
import pytest

from contexten.extensions.flow.answers.reading import Answers
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import StoreError
from contexten.extensions.flow.execution.conductor import Conductor
from contexten.extensions.flow.live import feed as feed_module
from contexten.extensions.flow.live.feed import Feed
from contexten.extensions.flow.live.watching import Watchers
from contexten.extensions.flow.store import Committed, Event, Store, Transaction

pytestmark = pytest.mark.anyio


class Listener:
    """What a feed tells of: entries by their actor, and those told before to whom others' changes matter."""

    def __init__(self) -> None:
        self.heard_of: list[str] = []
        self.heeded: list[list[str]] = []
        self.defects: dict[str, Exception] = {}
        """Raised once on hearing of the actor's entry."""
        self.failures = 0
        """How often `on_foreign` is still to raise."""
        self.begun = anyio.Event()
        self.opened = anyio.Event()
        self.opened.set()
        self.news = anyio.Event()

    async def on_foreign(self, events: list[Event]) -> None:
        self.heeded.append([str(event.actor) for event in events])
        self.begun.set()
        await self.opened.wait()
        if self.failures:
            self.failures -= 1
            raise StoreError("The disk failed.")

    def heard(self, event: Event) -> None:
        self.heard_of.append(str(event.actor))
        self.news.set()
        defect = self.defects.pop(str(event.actor), None)
        if defect is not None:
            raise defect

    def after_commit(self) -> None:
        """All entries of a commit were heard."""

    async def hears(self, actor: str) -> None:
        with anyio.fail_after(30):
            while actor not in self.heard_of:
                self.news = anyio.Event()
                await self.news.wait()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def feed(store: Store, listener: Listener) -> Feed:
    clock = SystemClock()
    answers = Answers(store, clock, lambda: None)
    feed = Feed(
        store=store,
        clock=clock,
        answers=answers,
        watchers=Watchers(),
        on_foreign=listener.on_foreign,
        conductor=lambda: cast("Conductor", listener),
    )
    await feed.begin()
    return feed


@pytest.fixture
async def other(store: Store) -> AsyncIterator[Store]:
    """The database as another process has it."""
    other = Store(store.path)
    await other.open()
    yield other
    await other.close()


async def write(store: Store, *actors: str) -> Committed:
    """One commit with an entry of each actor."""

    def change(tx: Transaction) -> list[Event]:
        for actor in actors:
            tx.event("agent.noted", 1.0, actor=actor)
        return tx.events[-len(actors) :]

    return Committed(await store.write(change))


async def test_an_entry_that_cannot_be_heard_keeps_no_other_from_being_heard(
    feed: Feed, listener: Listener, other: Store
) -> None:
    listener.defects["a"] = KeyError("deadline")
    await write(other, "a", "b")
    await feed._look()
    assert listener.heard_of == ["a", "b"]


async def test_following_goes_on_after_a_defect(
    feed: Feed, listener: Listener, other: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FOLLOW_S", 0.001)
    rows = store.rows
    defects: list[Exception] = [KeyError("a defect"), StoreError("The disk failed.")]

    async def faulty(*arguments: Any) -> Any:
        if defects:
            raise defects.pop()
        return await rows(*arguments)

    monkeypatch.setattr(store, "rows", faulty)
    async with anyio.create_task_group() as group:
        group.start_soon(feed.follow)
        await write(other, "a")
        await listener.hears("a")
        group.cancel_scope.cancel()
    assert defects == []


async def test_entries_are_announced_though_what_they_change_could_not_be_taken_in(
    feed: Feed, listener: Listener, other: Store
) -> None:
    listener.failures = 2
    await write(other, "a")
    await feed._look()
    assert listener.heard_of == ["a"]
    for _ in range(3):  # the second fails too, the third succeeds, and then nothing is due any more
        await feed._look()
    assert listener.heeded == [["a"], [], []]
    await write(other, "b")
    await feed._look()
    assert listener.heard_of == ["a", "b"]


async def test_an_own_commit_does_not_overtake_older_entries_of_others(
    feed: Feed, listener: Listener, other: Store, store: Store
) -> None:
    listener.opened = anyio.Event()
    await write(other, "a")
    async with anyio.create_task_group() as group:
        group.start_soon(feed._look)
        await listener.begun.wait()
        feed.committed(await write(store, "b"))
        await write(other, "c")
        feed.committed(await write(store, "d"))
        assert listener.heard_of == []
        listener.opened.set()
    assert listener.heard_of[:2] == ["a", "b"]
    await feed._look()
    assert sorted(listener.heard_of) == ["a", "b", "c", "d"]
    await feed._look()
    assert len(listener.heard_of) == 4


async def test_what_is_read_is_announced_though_following_ends_meanwhile(
    feed: Feed, listener: Listener, other: Store, store: Store
) -> None:
    listener.opened = anyio.Event()
    await write(other, "a")
    async with anyio.create_task_group() as group:
        group.start_soon(feed._look)
        await listener.begun.wait()
        feed.committed(await write(store, "b"))
        group.cancel_scope.cancel()
    assert listener.heard_of == ["a", "b"]


async def test_an_own_commit_that_a_look_has_read_before_it_was_told_is_announced_once(
    feed: Feed, listener: Listener, store: Store
) -> None:
    own = await write(store, "a", "b")
    await feed._look()
    feed.committed(own)
    assert listener.heard_of == ["a", "b"]
    feed.committed(await write(store, "c"))
    await feed._look()
    assert listener.heard_of == ["a", "b", "c"]
