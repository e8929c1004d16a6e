"""Group commit: what fails alone, what fails together, and what holds while it happens."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.errors import (
    Closing,
    FlowError,
    StoreBusy,
    StoreConflict,
    StoreError,
    StoreFull,
    StoreTooNew,
)
from contexten.extensions.flow.states import TaskState
from contexten.extensions.flow.store import Committed, Refused, Store, Transaction
from contexten.extensions.flow.store import database as database_module
from contexten.extensions.flow.store import lock as lock_module
from contexten.extensions.flow.store import writer as writer_module

from .conftest import FAULTS, Disk, Hand, task_move

pytestmark = pytest.mark.anyio


def enter(name: str) -> Callable[[Transaction], int]:
    return lambda tx: tx.event(name, 1.0)


def refuse(tx: Transaction) -> None:
    tx.event("half.done", 1.0)
    tx.execute("INSERT INTO settings VALUES ('half', 'done')")
    raise Refused("no")


def break_down(tx: Transaction) -> None:
    refuse_nothing = tx.event("half.done", 1.0)
    raise ZeroDivisionError(refuse_nothing)


async def together(store: Store, *changes: Callable[[Transaction], Any]) -> list[tuple[Any, BaseException | None]]:
    """Submit changes in one turn of the loop; what became of each."""
    found: list[tuple[Any, BaseException | None]] = [(None, None)] * len(changes)
    left, done = len(changes), anyio.Event()

    def settle(place: int, result: Any, error: BaseException | None) -> None:
        nonlocal left
        found[place] = (result, error)
        left -= 1
        if not left:
            done.set()

    for place, change in enumerate(changes):
        store.submit(change, partial(settle, place))
    with anyio.fail_after(20):
        await done.wait()
    return found


async def names(store: Store) -> list[str]:
    return [str(row[0]) for row in await store.rows("SELECT type FROM events WHERE run_id IS NULL ORDER BY seq")]


def enter_no_text(tx: Transaction) -> None:
    tx.enter(None, None, ["half.done"], None, None, None, 1.0, None, None)


def enter_no_number(tx: Transaction) -> None:
    tx.enter(None, None, "half.done", None, None, None, 10**30, None, None)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (refuse, Refused),
        (break_down, ZeroDivisionError),
        (enter_no_text, StoreConflict),
        (enter_no_number, OverflowError),
    ],
)
async def test_a_refused_change_fails_alone(store: Store, change: Any, error: type[Exception]) -> None:
    before = await names(store)
    found = await together(store, enter("one"), change, enter("two"))
    assert isinstance(found[1][1], error)
    assert [result for result, _ in (found[0], found[2])] == [len(before) + 1, len(before) + 2]
    assert await names(store) == [*before, "one", "two"]
    assert await store.rows("SELECT 1 FROM settings WHERE key = 'half'") == []


async def test_a_refused_move_of_one_run_leaves_the_moves_of_others_in_its_group(hand: Hand) -> None:
    runs = [await hand.running() for _ in range(3)]
    refusals = []

    async def move(place: int) -> None:
        fence = 99 if place == 1 else None
        try:
            await hand.advance(runs[place], task_move(TaskState.RUNNING), fence=fence)
        except Refused:
            refusals.append(place)

    async with anyio.create_task_group() as group:
        for place in range(3):
            group.start_soon(move, place)
    assert refusals == [1]
    rows = await hand.store.rows("SELECT run_id FROM tasks ORDER BY run_id")
    assert [row[0] for row in rows] == [runs[0].run_id, runs[2].run_id]


async def test_changes_of_one_turn_are_one_commit(disk: Disk, store: Store) -> None:
    commits: list[str] = []
    disk.watch = lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None
    await together(store, *(enter(f"e{number}") for number in range(50)))
    assert len(commits) == 1


async def test_a_refusal_that_is_forgotten_while_the_writer_works_does_not_disturb_it(database: Path) -> None:
    """Its traceback holds the transaction until the garbage collector comes by, on any thread. Statements are shared by
    all cursors of a connection: a cursor freed elsewhere would reset one that the writer is using."""

    are_entered = threading.Event()

    def many(tx: Transaction) -> None:
        for _ in range(10_000):
            tx.event("many", 1.0)
        are_entered.set()  # now they are written to the journal

    store = Store(database, durability="process")
    await store.open()
    try:
        for _ in range(10):
            kept = [await together(store, enter("one"), refuse) for _ in range(50)]
            are_entered.clear()
            async with anyio.create_task_group() as group:
                group.start_soon(store.write, many)
                while not are_entered.is_set():
                    await anyio.lowlevel.checkpoint()
                kept.clear()
                gc.collect()
    finally:
        await store.close()


async def test_a_refusal_that_is_kept_does_not_keep_the_journal_from_being_folded_in(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_after_reading(tx: Transaction) -> None:
        tx.row("SELECT key FROM settings UNION ALL SELECT type FROM events")  # more rows than are read
        raise Refused("no")

    kept = await together(store, enter("one"), refuse_after_reading)
    await store.close()
    assert isinstance(kept[1][1], Refused)
    assert "could not be folded in" not in caplog.text
    wal = Path(f"{store.path}-wal")
    assert not wal.exists() or wal.stat().st_size == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_commit_that_fails_fails_its_whole_group_and_the_next_one_works(
    disk: Disk, store: Store, fault: str
) -> None:
    before = await names(store)
    disk.fault = fault
    found = await together(store, enter("one"), enter("two"))
    expected = {"io": StoreError, "full": StoreFull, "busy": StoreBusy}[fault]
    for result, error in found:
        assert result is None
        assert type(error) is expected
        assert isinstance(error, FlowError)
        assert error.next
        assert str(store.path.parent) not in error.message
    disk.fault = None
    (after,) = await together(store, enter("three"))
    assert after == (len(before) + 1, None)
    assert await names(store) == [*before, "three"]


async def test_a_full_database_says_so_and_takes_changes_when_there_is_room(store: Store) -> None:
    def no_room(tx: Transaction) -> None:
        tx.execute("PRAGMA max_page_count = 1").fetchall()  # SQLite takes the size it has

    def big(tx: Transaction) -> None:
        tx.execute("INSERT INTO settings VALUES ('big', ?)", ("x" * 1_000_000,))

    await store.write(no_room)
    with pytest.raises(StoreFull) as caught:
        await store.write(big)
    assert caught.value.retryable
    await store.write(lambda tx: tx.execute("PRAGMA max_page_count = 1073741823").fetchall() and None)
    await store.write(big)
    assert await store.rows("SELECT length(value) FROM settings WHERE key = 'big'") != []


async def test_a_writer_that_ignores_our_lock_makes_the_store_busy_not_broken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(lambda tx: tx.execute("PRAGMA busy_timeout = 20").fetchall() and None)
    other = sqlite3.connect(store.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with anyio.fail_after(30), pytest.raises(StoreBusy):
            await store.write(enter("one"))
        other.execute("ROLLBACK")
    finally:
        other.close()
    await store.write(enter("two"))
    assert (await names(store))[-1] == "two"


async def test_listeners_hear_of_a_commit_before_its_writers_and_never_of_a_failed_one(
    disk: Disk, database: Path
) -> None:
    heard: list[str] = []
    store = Store(database)
    store.on_commit = lambda committed: heard.extend(event.type for event in committed.events)
    await store.open()
    try:
        await together(store, enter("one"), refuse)
        assert heard == ["one"]
        store.submit(enter("two"), lambda result, error: heard.append("settled"))
        await store.write(enter("three"))
        assert heard == ["one", "two", "three", "settled"]
        disk.fault = "io"
        with pytest.raises(StoreError):
            await store.write(enter("four"))
        assert "four" not in heard
    finally:
        disk.fault = None
        await store.close()


async def test_a_listener_that_raises_keeps_nobody_waiting(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    def listen(committed: Committed) -> None:
        raise ValueError("a defect")

    store = Store(database)
    store.on_commit = listen
    await store.open()
    try:
        with anyio.fail_after(30):
            assert await store.write(enter("one")) == 1
    finally:
        await store.close()


async def test_a_change_is_made_even_where_its_caller_was_cancelled(store: Store) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.write(enter("kept"))
    assert scope.cancelled_caught
    await store.write(enter("after"))
    assert (await names(store))[-2:] == ["kept", "after"]


async def test_what_was_submitted_before_closing_is_written(database: Path) -> None:
    store = Store(database)
    await store.open()
    settled: list[Any] = []
    for number in range(5):
        store.submit(enter(f"e{number}"), lambda result, error: settled.append(error))
    await store.close()
    assert settled == [None] * 5
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (5,)
    connection.close()
    with pytest.raises(Closing):
        await store.write(enter("late"))


async def test_a_database_upgraded_by_another_process_takes_no_more_changes(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreTooNew) as caught:
        await store.write(enter("one"))
    assert "99" in caught.value.message


# The lock between processes
def is_locked(path: Path) -> bool:
    """Whether somebody holds `<database>.lock` (a descriptor of its own is as good as another process)."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def another_process_locks(path: Path) -> Iterator[Callable[[], None]]:
    """A process of its own that holds the lock until it is told to let go."""
    program = (
        "import fcntl, os, sys\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, f"{path}.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield process.stdin.close
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


async def test_the_lock_is_held_during_each_write_and_each_checkpoint(disk: Disk, database: Path) -> None:
    unlocked: list[str] = []
    seen: list[str] = []

    def watch(sql: str) -> None:
        verb = sql.lstrip().split("(")[0].split(" ")[:2]
        if verb[0] in ("BEGIN", "COMMIT", "INSERT", "UPDATE") or "wal_checkpoint" in sql:
            seen.append(" ".join(verb))
            if not is_locked(database):
                unlocked.append(sql)

    store = Store(database)
    await store.open()
    disk.watch = watch
    await together(store, enter("one"), enter("two"))
    assert not is_locked(database)
    await store.close()
    disk.watch = lambda sql: None
    assert unlocked == []
    assert {"BEGIN IMMEDIATE", "COMMIT", "PRAGMA wal_checkpoint"} <= set(seen)


async def test_a_write_waits_while_another_process_holds_the_lock(store: Store) -> None:
    done: list[int] = []
    with another_process_locks(store.path) as let_go:
        async with anyio.create_task_group() as group:

            async def write() -> None:
                done.append(await store.write(enter("one")))

            group.start_soon(write)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
                assert await store.rows("SELECT 1") != []  # reads do not wait
            assert not done
            let_go()
            with anyio.fail_after(30):
                while not done:
                    await anyio.lowlevel.checkpoint()
    assert (await names(store))[-1] == "one"


async def test_a_lock_that_is_never_given_back_makes_the_store_busy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "LOCK_TIMEOUT_S", 0.05)
    with another_process_locks(store.path), anyio.fail_after(30), pytest.raises(StoreBusy):
        await store.write(enter("one"))
    await store.write(enter("two"))
    assert (await names(store))[-1] == "two"


async def test_opening_waits_for_the_lock_too(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Store(database)
    await first.open()
    await first.close()
    monkeypatch.setattr(database_module, "LOCK_TIMEOUT_S", 0.05)
    second = Store(database)
    with another_process_locks(database), anyio.fail_after(30), pytest.raises(StoreBusy):
        await second.open()
    await second.open()
    await second.close()


# A file system that fails to lock
def no_locks(*_: Any, **__: Any) -> bool:
    raise OSError(errno.ENOLCK, "No locks available")


async def test_a_file_system_that_does_not_lock_fails_the_change_in_words_and_the_next_one_works(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, anyio.fail_after(30):
        patch.setattr(lock_module, "_try_lock", no_locks)
        with pytest.raises(StoreError, match="No locks available") as caught:
            await store.write(enter("one"))
    assert caught.value.next
    await store.write(enter("two"))
    assert (await names(store))[-1] == "two"


async def test_a_lock_that_fails_while_the_journal_is_folded_in_keeps_nobody_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = writer_module.Writer._checkpoint

    def without_locks(writer: writer_module.Writer, mode: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(lock_module, "_try_lock", no_locks)
            checkpoint(writer, mode)

    monkeypatch.setattr(writer_module, "FOLD_GROUPS", 0)
    monkeypatch.setattr(writer_module.Writer, "_checkpoint", without_locks)
    with anyio.fail_after(30):
        await store.write(enter("one"))
        await store.write(enter("two"))
    assert (await names(store))[-2:] == ["one", "two"]
    assert "could not be folded in" in caplog.text


async def test_whatever_befalls_the_folding_in_keeps_nobody_waiting(
    disk: Disk, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def watch(sql: str) -> None:
        if "wal_checkpoint" in sql:
            raise ZeroDivisionError

    monkeypatch.setattr(writer_module, "FOLD_GROUPS", 0)
    disk.watch = watch
    with anyio.fail_after(30):
        await store.write(enter("one"))
        await store.write(enter("two"))
    assert "could not be folded in" in caplog.text


async def test_a_change_that_was_made_is_told_so_though_the_lock_cannot_be_given_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await names(store)
    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "_unlock", no_locks)
        assert await store.write(enter("one")) == len(before) + 1
    assert is_locked(store.path)
    assert await store.write(enter("two")) == len(before) + 2
    assert not is_locked(store.path)


async def test_a_store_closes_though_the_file_system_does_not_lock(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(database)
    await store.open()
    with monkeypatch.context() as patch, anyio.fail_after(30):
        patch.setattr(lock_module, "_try_lock", no_locks)
        await store.close()
    assert store._connection is None
    assert store._write_lock is None


async def test_a_store_whose_thread_cannot_be_started_says_so(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(writer_module.Writer, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await Store(database).open()
