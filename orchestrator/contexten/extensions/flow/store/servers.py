"""The servers that drive a database: a row and a lock file each.

A server beats in its row; others watch the beat. Its lock file is freed by the operating system the moment its process
ends. A row that has gone means that the lease is over: the runs of that server are anybody's.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..clock import iso
from .claims import release, take_over
from .lock import FileLock, holder_of
from .place import file_of
from .records import ClaimedRun
from .sql import SQL
from .writer import Transaction

PREFIX = "srv_"  # of every server's id; its lock file is `<database>.<id>`
_HOLD_S = 0.2  # who asks for the holder has the lock for some microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One process that drives the database, as it introduces itself."""

    server_id: str
    holder: str
    started_at: float
    host: str = ""
    pid: int = 0

    @classmethod
    def here(cls, server_id: str, holder: str, started_at: float) -> Server:
        """This process."""
        return cls(
            server_id=server_id, holder=holder, started_at=started_at, host=socket.gethostname(), pid=os.getpid()
        )


class Beat(NamedTuple):
    """One server's row, as an observer reads it."""

    server_id: str
    beat: int


class Look(NamedTuple):
    """What a server saw when it beat."""

    beats: list[Beat]
    """Of all servers, its own included."""
    has_abandoned: bool
    """Running runs are there that no server owns."""


class Expelled(NamedTuple):
    """What became of servers that were taken for dead."""

    gone: list[str]
    """Those that are servers no more."""
    taken: list[ClaimedRun]


# Rows
def join(tx: Transaction, server: Server) -> Look:
    """Become one of the servers."""
    row = (server.server_id, server.host, server.pid, server.holder, server.started_at, server.started_at)
    tx.execute(SQL["insert_server"], row)
    data = {"server_id": server.server_id, "holder": server.holder, "host": server.host, "pid": server.pid}
    tx.event("server.started", server.started_at, data=json.dumps(data))
    return _look(tx)


def beat(tx: Transaction, server_id: str, at: float) -> Look | None:
    """Show that the server lives; None where its row has gone, since others took it for dead."""
    tx.execute(SQL["beat"], (at, server_id))
    return _look(tx) if tx.cursor.rowcount else None


def _look(tx: Transaction) -> Look:
    return Look([Beat(*row) for row in tx.rows(SQL["beats"])], bool(tx.row(SQL["has_abandoned_runs"])[0]))


def expel(
    tx: Transaction,
    owner: str,
    at: float,
    *,
    dead: Iterable[tuple[Beat, str]],
    declined: Sequence[str] = (),
    refused: Sequence[str] = (),
) -> Expelled:
    """Remove the rows of servers that have not moved since they were seen, each with the reason, and take over the
    part of their runs that falls to `owner`; the others hear of it and take theirs."""
    if not tx.may_own(owner):
        return Expelled([], [])
    gone: list[str] = []
    abandoned = 0
    for (server_id, seen), reason in dead:
        row = tx.row(SQL["expel_server"], (server_id, seen))
        if row is None:  # it moved, or another observer was first
            continue
        runs = int(tx.row(SQL["count_owned_runs"], (server_id,))[0])
        data = {"server_id": server_id, "holder": row[0], "host": row[1], "pid": row[2], "reason": reason}
        tx.event("server.lost", at, data=json.dumps({**data, "runs": runs, "by": owner}))
        gone.append(server_id)
        abandoned += runs
    return Expelled(gone, take_share(tx, owner, at, abandoned=abandoned, declined=declined, refused=refused))


def take_share(
    tx: Transaction,
    owner: str,
    at: float,
    *,
    abandoned: int,
    declined: Sequence[str] = (),
    refused: Sequence[str] = (),
) -> list[ClaimedRun]:
    """Take over one server's part of so many runs that lost their owner."""
    servers = int(tx.row(SQL["count_servers"])[0])
    limit = -(-abandoned // servers) if servers > 1 else -1
    return take_over(tx, owner, at, limit=limit, declined=declined, refused=refused)


def leave(tx: Transaction, server_id: str, at: float) -> None:
    """Give up all runs and stop being one of the servers."""
    runs = int(tx.row(SQL["count_owned_runs"], (server_id,))[0])
    release(tx, tx.rows(SQL["owned_runs"], (server_id,)), at)
    tx.execute(SQL["delete_server"], (server_id,))
    if tx.cursor.rowcount:
        tx.event("server.stopped", at, data=json.dumps({"server_id": server_id, "runs": runs}))


# Lock files
def hold(database: Path, server: Server) -> FileLock:
    """Take the lock by which others see that the server lives. Raises StoreError."""
    while True:
        lock = FileLock(_lock_path(database, server.server_id))
        try:
            lock.acquire(_HOLD_S)
            if lock.is_in_place():  # else it was swept away before it was held
                since = iso(server.started_at)
                lock.write({"holder": server.holder, "pid": server.pid, "host": server.host, "since": since})
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def is_held(database: Path, server_id: str) -> bool:
    """Whether the process of that server is there; also where that cannot be told."""
    return holder_of(_lock_path(database, server_id)) is not None


def forget(database: Path, server_id: str) -> None:
    """Remove the lock file of a server that is no more."""
    with suppress(OSError):  # somebody else did, or has it open where open files cannot be removed
        _lock_path(database, server_id).unlink()


def sweep(database: Path, known: Iterable[str]) -> None:
    """Remove lock files that nobody holds, but of `known` servers: processes died between making one and their row."""
    for server_id in set(_ids(database)).difference(known):
        if not is_held(database, server_id):
            forget(database, server_id)


def drivers_of(database: Path) -> list[dict[str, Any]]:
    """The servers that live now, oldest first, as their lock files say: holder, pid, host, since. Opens no database."""
    database = file_of(database)
    holders = (holder_of(_lock_path(database, server_id)) for server_id in sorted(_ids(database)))
    return [holder for holder in holders if holder is not None]


def _lock_path(database: Path, server_id: str) -> Path:
    return Path(f"{database}.{server_id}")


def _ids(database: Path) -> list[str]:
    start = f"{database.name}."
    try:
        names = [entry.name for entry in database.parent.iterdir()]
    except OSError:
        return []
    return [name.removeprefix(start) for name in names if name.startswith(start + PREFIX)]
