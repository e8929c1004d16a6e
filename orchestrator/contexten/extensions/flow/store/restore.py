"""Going back to a backup.

The backup is copied beside the database, brought to this program's schema and checked; only then it takes the
database's place, in one step. What was there stays beside it under another name.

The restored database is another one to those who held a cursor of the old: its journal goes on from the backup's end,
so the same places would mean other entries. It gets an identity of its own, and old cursors are answered with a reset.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..errors import InvalidArguments, StoreBusy, StoreError
from .backup import STAMP, checked
from .copying import copy_database, partial_file, sync
from .database import migrate, schema_level
from .lock import FileLock
from .place import file_of, make_folder
from .reading import connect
from .servers import drivers_of
from .sql import SQL
from .verify import Verification
from .writer import LOCK_TIMEOUT_S, translate

_FOLD_S = 1.0  # whoever reads the old file longer than that keeps its journal beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A database that is its backup again."""

    found: Verification
    unfinished: int
    """Runs that were under way or queued at the backup: the next server goes on with them."""
    replaced: Path | None
    """Where the database that was there is now."""


def restore(backup: Path, database: Path, at: datetime) -> Restored:
    """Put a backup in the database's place; repeating it gives the same database again. Blocks.

    Raises InvalidArguments where the backup is the database itself or is not there, StoreBusy while a server drives the
    database, StoreCorrupt where the backup is not sound, StoreTooNew where a newer program made it, StoreError.
    """
    database = file_of(database)
    if not backup.is_file():
        raise _wrong("There is no such file.", "Name a file that `contexten-flow backup` made.")
    if database.exists() and backup.samefile(database):
        raise _wrong("That file is the database itself.", "Name a file that `contexten-flow backup` made.")
    _check_not_driven(database)
    make_folder(database)
    with partial_file(database.with_name(f"{database.name}.restoring")) as staged:
        copy_database(backup, staged)
        unfinished = _renew(staged)
        found = checked(staged)
        sync(staged)
        replaced = _put_in_place(staged, database, at)
    return Restored(found=found, unfinished=unfinished, replaced=replaced)


def _wrong(message: str, suggestion: str) -> InvalidArguments:
    return InvalidArguments(message, next=suggestion)


def _check_not_driven(database: Path) -> None:
    drivers = drivers_of(database)
    if drivers:
        who = ", ".join(
            f"{driver.get('holder', 'another process')} (process {driver.get('pid', '?')})" for driver in drivers
        )
        raise StoreBusy(f"The database is in use: {who}.", next="End that server first, then restore again.")


def _renew(staged: Path) -> int:
    """Bring the copy to this program's schema, as a database of its own; answers how many runs it has to go on with."""
    try:
        with closing(sqlite3.connect(staged, isolation_level=None)) as connection:
            migrate(connection)
            connection.execute(SQL["set_identity"], (secrets.token_hex(3),))
            return int(connection.execute(SQL["count_unfinished_runs"]).fetchone()[0])
    except sqlite3.Error as error:
        raise translate(error) from error


def _put_in_place(staged: Path, database: Path, at: datetime) -> Path | None:
    lock = FileLock(Path(f"{database}.lock"))
    try:
        lock.acquire(LOCK_TIMEOUT_S)  # a server that is about to start writes nothing now; later it finds another file
        _check_not_driven(database)
        replaced = _keep_old(database, at) if database.exists() else None
        try:
            for suffix in ("-wal", "-shm"):  # of no database: the new one must not take them for its own
                Path(f"{database}{suffix}").unlink(missing_ok=True)
            staged.replace(database)
        except OSError:
            if replaced is not None:
                _give_back(replaced, database)
            raise
        sync(database.parent)
    except OSError as error:
        raise StoreError(
            f"The backup cannot be put in the database's place: {error.strerror}.",
            next="The database is as it was; mend that and restore again.",
        ) from error
    finally:
        lock.close()
    return replaced


def _give_back(kept: Path, database: Path) -> None:
    """Undo `_keep_old`: without its journal the database would lack what was committed last."""
    with suppress(FileNotFoundError):
        Path(f"{kept}-wal").rename(f"{database}-wal")
    kept.unlink()


def _keep_old(database: Path, at: datetime) -> Path:
    """Give the old file a second name, and its journal with it. Until the backup takes its place it has both names, so
    that nobody ever finds no database there and makes one."""
    with suppress(sqlite3.Error, StoreError):
        with closing(connect(database)) as connection:
            schema_level(connection)  # else it is damaged, and stays as it is for whoever looks into it
        with closing(sqlite3.connect(database, timeout=_FOLD_S)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    kept = database.with_name(f"{database.name}.replaced-{at.strftime(STAMP)}")
    number = 1
    while kept.exists():
        number += 1
        kept = database.with_name(f"{database.name}.replaced-{at.strftime(STAMP)}-{number}")
    os.link(database, kept)
    with suppress(FileNotFoundError):
        Path(f"{database}-wal").rename(f"{kept}-wal")
    return kept
