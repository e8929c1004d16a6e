"""A process that writes into a database as fast as it can, and notes beside it what was acknowledged.

`store` writes through the library's Store, `unlocked` the same with the lock between processes taken away, `apsw` with
the same statements and no lock through that library's own SQLite.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from contexten.extensions.flow.errors import StoreBusy, StoreError
from contexten.extensions.flow.store import Store, Transaction, writer
from contexten.extensions.flow.store.lock import FileLock

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entries (scribe TEXT, number INTEGER, text TEXT, PRIMARY KEY (scribe, number)) STRICT",
    "CREATE TABLE IF NOT EXISTS latest (place INTEGER PRIMARY KEY, text TEXT) STRICT",
)
ENTER = "INSERT INTO entries VALUES (?, ?, ?)"
REPLACE = "INSERT OR REPLACE INTO latest VALUES (?, ?)"
PLACES = 400  # so many pages are written again and again, at sizes that differ
AT_ONCE = 1  # changes that a scribe has under way through the Store: many small groups


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one scribe does."""

    name: str
    database: str
    ledger: str
    mode: str
    seconds: float
    fold_groups: int
    """Groups of changes between two turns of checkpointing."""
    folds: int
    """Checkpoints a turn: those after the first mostly find all folded in already, while another process writes."""


def enter(execute: Callable[[str, tuple[Any, ...]], object], name: str, number: int, chance: random.Random) -> None:
    """One change: an entry of its own, and a few rows that all scribes overwrite."""
    execute(ENTER, (name, number, "x" * chance.randrange(300)))
    for _ in range(2):
        execute(REPLACE, (chance.randrange(PLACES), "y" * chance.randrange(2000)))


@contextmanager
def _ledger(job: Job) -> Iterator[Callable[[int], object]]:
    with Path(job.ledger).open("a", buffering=1) as file:
        yield lambda number: file.write(f"{number}\n")


async def write_through_the_store(job: Job) -> None:
    """Until the time is over, with a checkpoint after every few groups."""
    writer.FOLD_GROUPS = job.fold_groups
    fold = writer.Writer._checkpoint

    def fold_often(self: writer.Writer, mode: str) -> None:
        for _ in range(job.folds):
            fold(self, mode)

    writer.Writer._checkpoint = fold_often  # type: ignore[method-assign]  # more of the same
    numbers, end = count(), time.monotonic() + job.seconds
    store = Store(Path(job.database), durability="process")
    await store.open(drives=True)

    def change(tx: Transaction, number: int) -> None:
        enter(tx.execute, job.name, number, random.Random(f"{job.name} {number}"))
        tx.event("entry", time.time(), actor=job.name)

    def prepare(tx: Transaction) -> None:
        for statement in SCHEMA:
            tx.execute(statement)

    async def keep_writing(acknowledge: Callable[[int], object]) -> None:
        while time.monotonic() < end:
            number = next(numbers)
            try:
                await store.write(partial(change, number=number))
            except StoreBusy:
                continue
            acknowledge(number)

    try:
        await store.write(prepare)
        if job.mode == "unlocked":  # from here on; the schema is there
            FileLock.acquire = lambda self, timeout_s: None  # type: ignore[method-assign]  # what this variant is for
        with _ledger(job) as acknowledge:
            await asyncio.gather(*(keep_writing(acknowledge) for _ in range(AT_ONCE)))
    finally:
        await store.close()


def write_through_apsw(job: Job) -> None:
    """The same load on SQLite as apsw brings it, and nothing between the processes but its own locks."""
    apsw: Any = import_module("apsw")
    connection = apsw.Connection(job.database)
    connection.set_busy_timeout(5000)
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    for statement in SCHEMA:
        connection.execute(statement)
    end = time.monotonic() + job.seconds
    with _ledger(job) as acknowledge:
        for number in count():
            if time.monotonic() >= end:
                break
            try:
                connection.execute("BEGIN IMMEDIATE")
                enter(connection.execute, job.name, number, random.Random(f"{job.name} {number}"))
                connection.execute("COMMIT")
            except apsw.BusyError:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                continue
            acknowledge(number)
            if number % job.fold_groups == 0:
                for _ in range(job.folds):
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    connection.close()


def main() -> int:
    """Do the job given as JSON; 1 where the database refused it."""
    job = Job(**json.loads(sys.argv[1]))
    try:
        if job.mode == "apsw":
            write_through_apsw(job)
        else:
            asyncio.run(write_through_the_store(job))
    except StoreError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
