"""Group commit: one thread owns the write connection and makes many changes durable with one flush.

A change is a function run on that thread; it may be run twice, so it does nothing but SQL. All changes that wait are
run in one transaction; a refused one fails alone, a failed commit fails its whole group. Who submitted a change
hears of it after the commit: memory follows the disk.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import (
    FlowError,
    StoreBusy,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
)
from .lock import FileLock
from .sql import SQL

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 10.0
FOLD_CHANGES = 2000
FOLD_GROUPS = 200
MAX_GROUP = 1000  # a group this long is committed even if more changes wait: bounds the latency of the first


class Event(NamedTuple):
    """One entry of the journal; `at` in seconds since the epoch, `data` JSON text."""

    seq: int
    run_id: str | None
    flow_id: str | None
    type: str
    task: str | None
    item: int | None
    attempt: int | None
    at: float
    actor: str | None
    data: str | None


class Refused(Exception):
    """A change's guard did not hold: the row was not in the expected state, or belongs to another owner now."""


class Stale(Refused):
    """What a change was made from has been changed meanwhile: make it anew from what holds now."""


class Transaction:
    """What a change may do: run SQL, and append to the journal."""

    __slots__ = ("_server_id", "cursor", "events", "seq")

    def __init__(self, cursor: sqlite3.Cursor, seq: int, server_id: str | None = None) -> None:
        self.cursor = cursor
        self.seq = seq
        self.events: list[Event] = []
        self._server_id = server_id

    def may_own(self, owner: str) -> bool:
        """Whether an owner may take runs: not where it is nobody, nor where it is this process's server and its lease
        has lapsed."""
        return bool(owner) and self._server_id in (None, owner)

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self.cursor.execute(sql, parameters)

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        return self.cursor.execute(sql, parameters).fetchone()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        return self.cursor.execute(sql, parameters).fetchall()

    def event(
        self,
        type: str,
        at: float,
        *,
        run_id: str | None = None,
        flow_id: str | None = None,
        task: str | None = None,
        item: int | None = None,
        attempt: int | None = None,
        actor: str | None = None,
        data: str | None = None,
    ) -> int:
        """Append to the journal; answers the entry's place."""
        return self.enter(run_id, flow_id, type, task, item, attempt, at, actor, data)

    def enter(self, *entry: Any) -> int:
        """Append to the journal what Event has after its place, in that order; for the many."""
        self.seq = seq = self.seq + 1
        self.events.append(Event(seq, *entry))
        return seq

    def write_events(self, start: int = 0) -> None:
        """Write the new entries of the journal, from that one on."""
        if len(self.events) > start:
            self.cursor.executemany(SQL["insert_event"], self.events[start:] if start else self.events)


@dataclass(slots=True)
class Committed:
    """One group after its commit: the journal's new entries."""

    events: list[Event]


Change = Callable[[Transaction], Any]
"""A change. One that has a static method `together(transaction, changes) -> results` is made with its like at once."""

Settle = Callable[[Any, BaseException | None], None]


class Pending(NamedTuple):
    """A change that waits for its commit, and who hears of it."""

    change: Change
    settle: Settle


Result = tuple[Pending, Any, BaseException | None]
Apply = Callable[[Transaction, list[Pending], list[Result]], None]


class _Refusal(Exception):
    """A change of a group that is run without savepoints was refused."""


def translate(error: sqlite3.Error) -> StoreError:
    """The error of SQLite as one of ours, with what to do about it."""
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return StoreConflict("The database was asked with values that it cannot take.")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy("Another program holds the database locked.", next="End that program, or try again.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreReadOnly(
            "The database cannot be opened for writing.",
            next="Check that the file and its folder exist and may be written, or choose another with --db.",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(
            "The database file is damaged or is not a database.",
            next="Restore a backup, or choose another file with --db. `contexten-flow verify` says more.",
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("The disk is full.", next="Free space on the disk of the database, then repeat the call.")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError("The disk of the database failed to read or write.", next="Check the disk.")
    return StoreError(f"The database refused a change: {type(error).__name__}.")


def _is_of_the_database(error: Exception) -> bool:
    """Whether an error says something of the file or the disk, rather than of the change that met it."""
    of_the_change = sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, of_the_change)


def _failure(error: Exception) -> Exception:
    """What befell one change, as who submitted it hears of it."""
    if not isinstance(error, sqlite3.Error):
        return error
    conflict = StoreConflict(
        "The database refused a change that breaks its rules.", next="`contexten-flow verify` says whether it is sound."
    )
    conflict.__cause__ = error
    return conflict


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file the path names now; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Writer:
    """The write thread. `submit` from one thread (the event loop's); results arrive through `deliver`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: FileLock,
        *,
        path: Path,
        schema_level: int,
        deliver: Callable[[Callable[[], None]], object],
        on_commit: Callable[[Committed], None],
    ) -> None:
        """`deliver` runs a function on the submitting thread; `on_commit` is called there before results settle."""
        self._connection = connection
        self._lock = lock
        self._path = path
        self._file = _identity(path)
        self._schema_level = schema_level
        self._deliver = deliver
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[list[Pending] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="contexten-flow-writer", daemon=True)
        """A daemon, since a process may end without closing the store, which then ends this thread as it exits."""
        self.server_id: str | None = None
        """Who takes runs by these changes, once it has a row among the servers; written by the submitting thread."""
        self.groups = 0
        """Commits so far; written by the write thread only."""
        self.changes = 0
        """Changes committed so far; written by the write thread only."""
        self._folded = self._folded_groups = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, batch: list[Pending]) -> None:
        """Hand changes over; each `settle` is called with a result or an error."""
        self._queue.put(batch)

    def close(self) -> None:
        """Finish what was submitted, then end the thread; blocks until it has ended."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch = self._queue.get()
            if batch is None:
                break
            group = list(batch)
            while len(group) < MAX_GROUP:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    closing = True
                    break
                group.extend(more)
            self._commit(group)
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")  # whoever reads long, as a backup does, holds no end up
        self._checkpoint("TRUNCATE")

    def _commit(self, group: list[Pending]) -> None:
        results: list[Result] = []
        committed: Committed | None = None
        try:
            self._lock.acquire(LOCK_TIMEOUT_S)
            try:
                if _identity(self._path) != self._file:
                    raise StoreError(
                        "The database's file was removed or replaced while this server had it open.",
                        next="Put it back if you can, and start the server again: until then nothing is taken.",
                    )
                committed = self._transact(group, results)
            finally:
                self._lock.release()
        except sqlite3.Error as error:
            logger.warning("a group of %d changes failed: %s", len(group), error)
            failure = translate(error)
            results = [(pending, None, failure) for pending in group]
        except FlowError as error:
            results = [(pending, None, error) for pending in group]
        except Exception:  # the thread must live: everybody waits for it
            logger.exception("a group of %d changes failed", len(group))
            lost = StoreError("The database could not be written.", next="The server's log says why.")
            results = [(pending, None, lost) for pending in group]
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._deliver(lambda: self._settle(committed, results))
        if committed is not None and self._journal_is_long():
            self._checkpoint("PASSIVE")

    def _transact(self, group: list[Pending], results: list[Result]) -> Committed:
        try:
            return self._run_group(group, results, self._apply_all)
        except _Refusal:  # rare: only then is the group run again, each change inside a savepoint
            results.clear()
            return self._run_group(group, results, self._apply_each)

    def _run_group(self, group: list[Pending], results: list[Result], apply: Apply) -> Committed:
        connection = self._connection
        cursor = connection.cursor()
        connection.execute("BEGIN IMMEDIATE")
        try:
            server_id = self.server_id
            before, level, has_row = connection.execute(SQL["group_start"], (server_id,)).fetchone()
            if level > self._schema_level:
                raise StoreTooNew(
                    f"The database has schema level {level}; this program knows {self._schema_level}.",
                    next="Upgrade contexten-flow: another process has already upgraded the database.",
                )
            transaction = Transaction(cursor, before, server_id if has_row or server_id is None else "")
            apply(transaction, group, results)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:  # freed on another thread with the traceback of a refusal, it would reset a statement in use
            cursor.close()
        self.groups += 1
        self.changes += len(group)
        return Committed(transaction.events)

    @staticmethod
    def _apply_all(transaction: Transaction, group: list[Pending], results: list[Result]) -> None:
        alike: dict[Any, list[Pending]] = {}
        try:
            for pending in group:
                together = getattr(pending.change, "together", None)
                if together is None:
                    results.append((pending, pending.change(transaction), None))
                else:
                    alike.setdefault(together, []).append(pending)
            for together, members in alike.items():
                answers = together(transaction, [pending.change for pending in members])
                results.extend((pending, answer, None) for pending, answer in zip(members, answers, strict=True))
            transaction.write_events()
        except Exception as error:
            if _is_of_the_database(error):
                raise
            raise _Refusal from error

    @staticmethod
    def _apply_each(transaction: Transaction, group: list[Pending], results: list[Result]) -> None:
        for pending in group:
            mark, seq = len(transaction.events), transaction.seq
            transaction.execute("SAVEPOINT change")
            try:
                result = pending.change(transaction)
                transaction.write_events(mark)
            except Exception as error:  # a refusal, or a defect of the change: it fails alone
                if _is_of_the_database(error):
                    raise  # not the change: the whole group fails
                if not isinstance(error, Refused | FlowError):
                    logger.exception("a change of the database failed")
                transaction.execute("ROLLBACK TO change")
                transaction.execute("RELEASE change")
                del transaction.events[mark:]
                transaction.seq = seq
                results.append((pending, None, _failure(error)))
            else:
                transaction.execute("RELEASE change")
                results.append((pending, result, None))

    def _settle(self, committed: Committed | None, results: list[Result]) -> None:
        try:
            if committed is not None and committed.events:
                self._on_commit(committed)
        except Exception:
            logger.exception("who hears of commits failed")
        for pending, result, error in results:
            try:
                pending.settle(result, error)
            except Exception:
                logger.exception("who waited for a change failed")

    def _journal_is_long(self) -> bool:
        return self.changes - self._folded >= FOLD_CHANGES or self.groups - self._folded_groups >= FOLD_GROUPS

    def _checkpoint(self, mode: str) -> None:
        try:
            self._lock.acquire(LOCK_TIMEOUT_S)
            try:
                self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
                self._folded, self._folded_groups = self.changes, self.groups
            finally:
                self._lock.release()
        except (sqlite3.Error, FlowError) as error:
            logger.warning("the journal of SQLite could not be folded in; it will be tried again: %s", error)
        except Exception:  # the thread must live
            logger.exception("the journal of SQLite could not be folded in; it will be tried again")
