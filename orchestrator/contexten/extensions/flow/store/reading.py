"""Connections that only read: they change nothing, and closing the last of them folds nothing into the file.

SQLite checkpoints when the last connection closes, whether or not it may write rows; one opened read-only cannot.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiosqlite

from .servers import drivers_of
from .sql import SQL

BUSY_TIMEOUT_MS = 5000


def read_only(path: Path) -> str:
    """The address by which SQLite opens a file for reading only."""
    return f"{path.absolute().as_uri()}?mode=ro"


def connect(path: Path) -> sqlite3.Connection:
    """A connection for reading, usable by one thread after another. Raises sqlite3.Error; some only with the first
    query."""
    connection = sqlite3.connect(read_only(path), uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


async def open_reader(path: Path) -> aiosqlite.Connection:
    """A connection for reading with a thread of its own, which does not keep alive a process that ends without closing
    it. Raises sqlite3.Error."""
    made: list[aiosqlite.Connection] = []
    _apart(lambda: made.append(aiosqlite.connect(read_only(path), uri=True, isolation_level=None)))
    reader = await made[0]
    reader.row_factory = sqlite3.Row
    await reader.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return reader


def drop_reader(reader: aiosqlite.Connection) -> None:
    """Have a connection closed whose event loop is; its thread does so when it comes to it."""
    _apart(reader.stop)


def _apart(call: Callable[[], object]) -> None:
    """Make a call on a daemon thread: threads that it makes are daemons then, and it finds no event loop to answer."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join()


def glance(path: Path) -> tuple[dict[str, int], str | None]:
    """How many runs are in each state, and the strategy: in force while a server lives, else remembered.
    Nothing where there is no database of ours."""
    try:
        with closing(connect(path)) as connection:
            counts = {str(state): int(count) for state, count in connection.execute(SQL["count_runs"])}
            remembered: dict[str, str] = dict(connection.execute(SQL["scheduling_settings"]).fetchall())
    except sqlite3.DatabaseError:
        return {}, None
    is_shared = "in_force" in remembered and bool(drivers_of(path))
    return counts, json.loads(remembered["in_force"])["strategy"] if is_shared else remembered.get("strategy")
