"""A whole copy of a database in one file, while servers write to it.

SQLite's backup API copies inside one read transaction, so the copy is one moment of the database however long it takes.
Without the transaction SQLite would begin anew after each commit of another connection, and under load never end.

It takes no lock of ours, and holds no writer up; only SQLite's journal grows meanwhile. That is safe also where SQLite
has the race that `lock` tells of: two connections are needed for it that write or checkpoint. This one can do neither,
not even when it closes as the last one, since it is opened for reading only. It holds a read mark as every question
does, and a mark can but keep others from beginning the journal anew.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ..errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReadOnly
from .database import schema_level
from .lock import FileLock
from .reading import connect
from .writer import translate

_PAGES = 1024  # of 4 KiB a step: so often it may be given up

OnStep = Callable[[int, int], None]
"""Told after each step how many pages are left, and of how many; what it raises ends the copying."""


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """An empty file of this user's only at `path`, for the time in which it is not what its final name will say.

    It is gone afterwards unless it was moved away; what a killed process left there is begun anew. Raises StoreBusy
    where another process has it, StoreReadOnly or StoreError where it cannot be made.
    """
    try:
        lock = FileLock(path)
    except StoreError as error:
        kind = StoreReadOnly if isinstance(error, StoreReadOnly) else StoreError
        raise kind(
            "The copy cannot be written there.",
            next="Make the folder, give this user write permission for it, or name another file.",
        ) from error
    try:
        if not (lock.try_acquire() and lock.is_in_place()):
            raise StoreBusy("Another process is writing that copy now.", next="Wait for it, or name another file.")
        try:
            lock.empty()
            yield path
        finally:
            if lock.is_in_place():
                path.unlink()
            with suppress(FileNotFoundError):
                Path(f"{path}-journal").unlink()
    finally:
        lock.close()


def copy_database(source: Path, target: Path, on_step: OnStep | None = None) -> None:
    """Fill an empty file with what `source` holds now. It needs no files beside it, and lies on the disk when this
    returns.

    Raises StoreError, of its kinds StoreCorrupt where the source is no database of ours, StoreTooNew, and StoreFull.
    """
    try:
        with closing(connect(source)) as read:
            read.execute("BEGIN")
            if not schema_level(read):
                raise StoreCorrupt("The file holds no database.", next="Name another file; nothing was changed.")
            _fill(target, read, on_step)
    except sqlite3.Error as error:
        raise _failure(error) from error
    sync(target)


def _fill(target: Path, read: sqlite3.Connection, on_step: OnStep | None) -> None:
    with closing(sqlite3.connect(target, isolation_level=None)) as write:
        write.execute("PRAGMA journal_mode = OFF").fetchall()  # a copy that was cut off is thrown away
        write.execute("PRAGMA synchronous = OFF")
        read.backup(
            write,
            pages=_PAGES,
            progress=None if on_step is None else lambda _status, left, total: on_step(left, total),
        )
        write.execute("PRAGMA journal_mode = DELETE").fetchall()  # else readers would make files beside it


def _failure(error: sqlite3.Error) -> StoreError:
    failure = translate(error)
    if isinstance(failure, StoreFull):
        return StoreFull(
            "The disk on which the copy is written is full.", next="Free space there, or name a file on another disk."
        )
    if isinstance(failure, StoreReadOnly):
        return StoreReadOnly(
            "The file to copy cannot be read, or the copy cannot be written.",
            next="Give this user permission to read the one and to write the other, and for both folders: SQLite makes "
            "files of its own beside a database that is in use.",
        )
    if isinstance(failure, StoreCorrupt):
        return StoreCorrupt(
            "The file to copy is damaged or is not a database.",
            next="`contexten-flow restore` takes an earlier backup.",
        )
    return failure


def sync(path: Path) -> None:
    """Have a file, or a folder's names, on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
