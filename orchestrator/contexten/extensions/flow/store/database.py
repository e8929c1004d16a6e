"""Opening, migrating, writing and reading the database file."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from ..errors import Closing, StoreCorrupt, StoreError, StoreReadOnly, StoreTooNew
from . import reading
from .lock import FileLock
from .place import file_of, make_folder
from .sql import SQL
from .writer import LOCK_TIMEOUT_S, Committed, Pending, Transaction, Writer, translate

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CLOSE_S = 1.0  # whoever has the lock longer has a connection too, and ours is not the last


def _migrations() -> list[str]:
    folder = files(__package__) / "migrations"
    return [
        entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    ]


MIGRATIONS = tuple(_migrations())
SCHEMA_LEVEL = len(MIGRATIONS)
"""The level of schema that this program writes; a file's own is its `user_version`."""


def schema_level(connection: sqlite3.Connection) -> int:
    """The level of a database that is empty (0) or ours; changes nothing.

    Raises StoreTooNew where it is past this program's, StoreCorrupt where it is another program's database.
    """
    level = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not (level and {"flows", "runs", "events"} <= tables):
        raise StoreCorrupt(
            "The file is a database of another program.", next="Choose another file with --db; nothing was changed."
        )
    if level > SCHEMA_LEVEL:
        raise StoreTooNew(
            f"The database has schema level {level}; this program knows {SCHEMA_LEVEL}.",
            next="Upgrade contexten-flow, or choose another database with --db.",
        )
    return level


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to this program's schema, one transaction a migration. Raises as `schema_level`."""
    level = schema_level(connection)
    for number in range(level, SCHEMA_LEVEL):
        script = f"BEGIN IMMEDIATE;\n{MIGRATIONS[number]}\nPRAGMA user_version = {number + 1};\n"
        if number == 0:
            script += f"INSERT INTO settings VALUES ('database', '{secrets.token_hex(3)}');\n"
        try:
            connection.executescript(script + "COMMIT;")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _check_is_current(connection: sqlite3.Connection) -> None:
    if schema_level(connection) < SCHEMA_LEVEL:
        raise StoreError(
            "The database was made by an older version of this program.",
            next="Start a server on it once, such as `contexten-flow serve`: that brings it up to this version.",
        )


def not_readable(error: sqlite3.Error) -> StoreError:
    """Reading needs two files beside the database: SQLite makes them, and removes them with its last connection."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return StoreReadOnly(
            "The folder of the database cannot be written, and SQLite cannot read it without files of its own there.",
            next="Ask while a server runs on it, give this user write permission for the folder, or copy the database "
            "to another folder and name the copy with --db.",
        )
    return translate(error)


def settle_future(future: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    """Tell who waits for a change. Where the waiter was cancelled the change was made and nobody asks."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]  # None is the result of a change that answers nothing


def _nobody(committed: Committed) -> None:
    """Who hears of commits where nobody asked to."""


class Store:
    """The database of one process: one write thread, a connection for reads, and one for reads that take long.

    `on_commit`, set before it is opened, is called on the event loop after each group that changed something, before
    its writers go on.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Literal["power", "process"] = "power",
    ) -> None:
        self.path = file_of(path)
        self.identity = ""
        """The database's short id, part of every cursor; known once open."""
        self._durability = durability
        self.on_commit: Callable[[Committed], None] = _nobody
        self._batch: list[Pending] = []
        self._flush_due = False
        self._writer: Writer | None = None
        self._connection: sqlite3.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._surveyor: aiosqlite.Connection | None = None
        self._surveying = asyncio.Lock()
        self._write_lock: FileLock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._read_only: StoreReadOnly | None = None
        """Why nothing can be written, where the file was opened for questions only."""

    # Opening and closing
    async def open(self, *, drives: bool = False) -> None:
        """Open or make the file. Only who `drives` its runs brings an older file up to this program's schema; for
        others a file that cannot be written is opened for reading.

        Raises StoreBusy, StoreReadOnly, StoreCorrupt, StoreTooNew or StoreError.
        """
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        atexit.register(self._finish)
        try:
            await asyncio.to_thread(make_folder, self.path)
            try:
                connection = await asyncio.to_thread(self._connect, drives=drives)
            except StoreReadOnly as error:
                if drives or not self.path.is_file():
                    raise
                self._read_only = error
                connection = await asyncio.to_thread(self._connect_reading)
            self._connection = connection
            self.identity = str(connection.execute(SQL["setting"], ("database",)).fetchone()[0])
            self._reader = await reading.open_reader(self.path)
            if self._read_only is None:
                self._start_writer(connection)
        except sqlite3.Error as error:
            await self.close()
            raise translate(error) from error
        except BaseException:
            await self.close()
            raise

    def _start_writer(self, connection: sqlite3.Connection) -> None:
        assert self._write_lock is not None  # noqa: S101 - _connect made it
        assert self._loop is not None  # noqa: S101 - open() set it
        writer = Writer(
            connection,
            self._write_lock,
            path=self.path,
            schema_level=SCHEMA_LEVEL,
            deliver=self._loop.call_soon_threadsafe,
            on_commit=self.on_commit,
        )
        writer.start()
        self._writer = writer

    def _connect_reading(self) -> sqlite3.Connection:
        connection = reading.connect(self.path)
        try:
            _check_is_current(connection)
        except sqlite3.Error as error:
            connection.close()
            raise not_readable(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, *, drives: bool) -> sqlite3.Connection:
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise StoreReadOnly(
                "The database file cannot be written.",
                next="Give this user write permission for it, or choose another database with --db.",
            )
        if not os.access(self.path.parent, os.W_OK):
            raise StoreReadOnly(
                "The folder of the database cannot be written.",
                next="Give this user write permission for it, or choose another database with --db.",
            )
        self._write_lock = FileLock(Path(f"{self.path}.lock"))
        self._write_lock.acquire(LOCK_TIMEOUT_S)
        is_new = not self.path.exists() or not self.path.stat().st_size
        try:
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            try:
                connection.execute(f"PRAGMA busy_timeout = {reading.BUSY_TIMEOUT_MS}")
                if schema_level(connection) and not drives:  # before anything is changed
                    _check_is_current(connection)
                if is_new:
                    self.path.chmod(0o600)
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                full = self._durability == "power"
                connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                connection.execute(f"PRAGMA fullfsync = {int(full)}")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("PRAGMA foreign_keys = 1")
                migrate(connection)
            except BaseException:
                connection.close()
                raise
            return connection
        finally:
            self._write_lock.release()

    async def close(self) -> None:
        """Finish what was submitted, fold SQLite's journal in, close. Safe to call twice."""
        if self._writer is not None:
            self._flush()
            writer, self._writer = self._writer, None
            await asyncio.to_thread(writer.close)
            await asyncio.sleep(0)  # what the thread delivered last is settled before the connection goes
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.close()
        async with self._surveying:
            if self._surveyor is not None:
                surveyor, self._surveyor = self._surveyor, None
                await surveyor.close()
        await asyncio.to_thread(self._disconnect)
        atexit.unregister(self._finish)

    def abandon(self) -> None:
        """Close where the event loop that opened it cannot, since it is closed itself. What was submitted becomes
        durable; blocks until it is."""
        for reader in (self._reader, self._surveyor):
            if reader is not None:
                reading.drop_reader(reader)
        self._reader = self._surveyor = None
        self._finish()
        atexit.unregister(self._finish)

    def _finish(self) -> None:
        """What is left to do where a process ends that did not close it: what was submitted becomes durable."""
        if self._process != os.getpid():  # a fork of the process whose database it is
            return
        if self._writer is not None:
            self._flush()
            writer, self._writer = self._writer, None
            writer.close()
        self._disconnect()

    def _disconnect(self) -> None:
        """Close the connection. SQLite checkpoints with the last one that may write, so that one is closed locked."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with ExitStack() as stack:
                if self._write_lock is not None and self._read_only is None:
                    with suppress(StoreError):
                        self._write_lock.acquire(_CLOSE_S)
                        stack.callback(self._write_lock.release)
                connection.close()
        if self._write_lock is not None:
            self._write_lock.close()
            self._write_lock = None
        self._read_only = None

    # Writing
    def own_as(self, server_id: str) -> None:
        """From now on changes take runs for this server, while it has a row among the servers."""
        if self._writer is not None:
            self._writer.server_id = server_id

    def submit(self, change: Callable[[Transaction], Any], settle: Callable[[Any, BaseException | None], None]) -> None:
        """Hand a change over; `settle(result, error)` is called on the event loop after its commit.

        All changes that are submitted in one turn of the loop go to the write thread together.
        """
        self._batch.append(Pending(change, settle))
        if not self._flush_due:
            self._flush_due = True
            assert self._loop is not None  # noqa: S101 - open() came before
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        batch, self._batch = self._batch, []
        if not batch:
            return
        if self._writer is None:
            error = self._read_only or Closing("The database is closed.")
            for pending in batch:
                pending.settle(None, error)
            return
        self._writer.submit(batch)

    async def write(self, change: Callable[[Transaction], T]) -> T:
        """Make a change durable and return its result. It happens even where the caller is cancelled meanwhile."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(change, partial(settle_future, future))
        return await future

    def figures(self) -> dict[str, int]:
        """Commits and changes since opening."""
        writer = self._writer
        return {"commits": writer.groups, "changes": writer.changes} if writer else {"commits": 0, "changes": 0}

    # Reading
    async def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query. Raises StoreError."""
        return await _rows(self._reader, sql, parameters)

    async def row(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Row | None:
        """The first row of a query. Raises StoreError."""
        rows = await self.rows(sql, parameters)
        return rows[0] if rows else None

    async def survey(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query that reads much: on a connection of its own, where it holds no other read up. Raises
        StoreError."""
        async with self._surveying:
            if self._surveyor is None and self._reader is not None:
                self._surveyor = await reading.open_reader(self.path)
            return await _rows(self._surveyor, sql, parameters)

    def size(self) -> int:
        """Bytes of the file and of SQLite's journal."""
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += Path(f"{self.path}{suffix}").stat().st_size
            except OSError:
                continue
        return total


async def _rows(
    reader: aiosqlite.Connection | None, sql: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> list[sqlite3.Row]:
    if reader is None:
        raise Closing("The database is closed.")
    try:
        return list(await reader.execute_fetchall(sql, parameters))
    except sqlite3.Error as error:
        raise translate(error) from error
