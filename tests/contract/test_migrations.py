"""Migrations go forward only, are what the schema is, and never change once they are released."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from contexten.extensions.flow.store import SCHEMA_LEVEL, Store
from contexten.extensions.flow.store import database as module
from contexten.extensions.flow.store.database import migrate

pytestmark = pytest.mark.anyio

RELEASED = {
    "0001_initial.sql": "ee2f48dbdf69de2fb9ebd4fa6aceff38e3e9a15f40c584353ec3bd0b39f0dcfb",
}
"""SHA-256 of each migration that a release has shipped: databases exist that were made by exactly this text.
A change of the schema is a new file; a new file is entered here with the release that brings it."""

FOLDER = files("contexten.extensions.flow.store") / "migrations"


def schema(path: Path) -> list[tuple[str, str, str]]:
    """Tables and indexes as SQLite has them, spacing and comments aside."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
        ).fetchall()
        return [(kind, name, re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", sql))) for kind, name, sql in rows]
    finally:
        connection.close()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "by_hand.sqlite3", isolation_level=None)
    yield connection
    connection.close()


def test_a_released_migration_never_changes() -> None:
    texts = {entry.name: entry.read_bytes() for entry in FOLDER.iterdir() if entry.name.endswith(".sql")}
    found = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items() if name in RELEASED}
    assert found == RELEASED


def test_migrations_are_numbered_without_a_gap() -> None:
    names = sorted(entry.name for entry in FOLDER.iterdir() if entry.name.endswith(".sql"))
    assert [int(name[:4]) for name in names] == list(range(1, SCHEMA_LEVEL + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names)


async def test_a_fresh_database_has_the_schema_of_migrating_step_by_step(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Store(database)
    await fresh.open()
    await fresh.close()
    stepwise = tmp_path / "stepwise.sqlite3"
    every = module.MIGRATIONS
    for level in range(1, SCHEMA_LEVEL + 1):
        monkeypatch.setattr(module, "MIGRATIONS", every[:level])
        monkeypatch.setattr(module, "SCHEMA_LEVEL", level)
        store = Store(stepwise)
        await store.open(drives=True)
        await store.close()
    assert schema(database) == schema(stepwise)
    assert len(schema(database)) > 10


async def test_opening_again_changes_nothing(database: Path) -> None:
    seen = []
    for _ in range(2):
        store = Store(database)
        await store.open()
        seen.append((store.identity, schema(database)))
        await store.close()
    assert seen[0] == seen[1]


def test_a_migration_that_fails_leaves_the_level_before_it(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(connection)
    connection.execute("INSERT INTO settings VALUES ('kept', 'yes')")
    broken = "CREATE TABLE half (x) STRICT;\nCREATE TABLE whole (y INTEGER) STRICT;"
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, broken))
    monkeypatch.setattr(module, "SCHEMA_LEVEL", SCHEMA_LEVEL + 1)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_LEVEL,)
    assert not connection.in_transaction
    mended = broken.replace("half (x)", "half (x INTEGER)")
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS[:-1], mended))
    migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_LEVEL + 1,)
    assert connection.execute("SELECT value FROM settings WHERE key = 'kept'").fetchone() == ("yes",)


RUN = {
    "run_id": "r",
    "flow_id": "f",
    "version": 1,
    "name": "n",
    "state": "scheduled",
    "framework": "native",
    "priority": 2,
    "queue_key": 1.0,
    "inputs": "{}",
    "total": 1,
    "created_at": 1.0,
}
TASK = {"run_id": "r", "task": "t", "state": "running", "cursor": 1}


def insert(connection: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    names = ", ".join(row)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


@pytest.fixture
def filled(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA foreign_keys = 1")
    migrate(connection)
    insert(
        connection,
        "flows",
        {"flow_id": "f", "name": "n", "tags": "[]", "listed": 1, "version": 1, "created_at": 1.0, "updated_at": 1.0},
    )
    insert(
        connection,
        "flow_versions",
        {"flow_id": "f", "version": 1, "digest": "d", "definition": "{}", "created_at": 1.0},
    )
    insert(connection, "runs", RUN)
    return connection


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "idle"},
        {"state": "paused"},  # without paused_at
        {"state": "completed"},  # without ended_at
        {"ended_at": 2.0},  # and not ended
        {"state": "failed", "ended_at": 2.0},  # without an error
        {"owner": "srv"},  # and not running
        {"version": 9},  # no such version
        {"flow_id": "nope"},
        {"parent_run_id": "nope"},
        {"inputs": "no json"},
        {"request": "resume"},
        {"timeout_s": 0.0},
        {"output_digest": "nope"},
        {"priority": "high"},
    ],
)
def test_the_schema_refuses_impossible_runs(filled: sqlite3.Connection, wrong: dict[str, object]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(filled, "runs", RUN | {"run_id": "other"} | wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "pending"},  # a pending task has no row
        {"state": "completed", "ended_at": 2.0},  # without an output
        {"state": "completed", "output": "1"},  # without ended_at
        {"state": "failed", "ended_at": 2.0},  # without an error
        {"ended_at": 2.0},  # and not ended
        {"run_id": "nope"},
        {"item": -2},
        {"items": "no json"},
        {"taken_over": 2},
        {"output_digest": "nope"},
    ],
)
def test_the_schema_refuses_impossible_tasks(filled: sqlite3.Connection, wrong: dict[str, object]) -> None:
    insert(filled, "tasks", TASK)
    with pytest.raises(sqlite3.IntegrityError):
        insert(filled, "tasks", TASK | {"task": "other"} | wrong)


def test_the_schema_refuses_a_second_run_for_an_idempotency_key(filled: sqlite3.Connection) -> None:
    insert(filled, "runs", RUN | {"run_id": "one", "idempotency_key": "k"})
    with pytest.raises(sqlite3.IntegrityError):
        insert(filled, "runs", RUN | {"run_id": "two", "idempotency_key": "k"})


def test_a_pruned_place_of_the_journal_is_never_given_again(filled: sqlite3.Connection) -> None:
    insert(filled, "events", {"type": "a", "at": 1.0})
    filled.execute("DELETE FROM events")
    insert(filled, "events", {"type": "b", "at": 1.0})
    assert filled.execute("SELECT seq FROM events").fetchone() == (2,)
