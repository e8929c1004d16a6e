"""Asking a database: it changes nothing, needs no permission to write, and never holds anybody up."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowScheduler
from contexten.extensions.flow.errors import StoreError, StoreReadOnly, StoreTooNew
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store import SCHEMA_LEVEL, lock
from contexten.extensions.flow.store import database as module
from contexten.extensions.flow.store.lock import FileLock, holder_of
from contexten.extensions.flow.store.servers import Server, drivers_of, forget, hold, is_held, sweep
from contexten.extensions.flow.store.verify import verify

from .conftest import Hand, another_user

pytestmark = pytest.mark.anyio

ONE = {"stages": [{"name": "s", "tasks": [{"name": "a", "type": "test", "required_tools": ["work"]}]}]}


async def work(task: object, context: object) -> int:
    return 1


async def ended(settings: FlowSettings) -> str:
    """A run that ended, in a database that nobody has open."""
    async with FlowService(settings, agents=[work]) as service:
        run = await service.execute_flow(workflow_def=ONE)
        assert (await service.wait(run.run_id, timeout_s=10)).state == "completed"
    return run.run_id


# Files that cannot be written
async def answers(settings: FlowSettings, run_id: str) -> None:
    """Everything that is asked is answered, and what would write is refused."""
    async with FlowService(settings, agents=[work], drive=False) as guest:
        assert [run.run_id for run in (await guest.list_runs()).runs] == [run_id]
        assert (await guest.get_run(run_id, detail="tasks")).state == "completed"
        assert (await guest.events(run_id))[-1].type == "run.completed"
        assert (await guest.verify()).ok
        with pytest.raises(StoreReadOnly):
            await guest.execute_flow(workflow_def=ONE)


async def test_a_file_that_cannot_be_written_is_read(open_folder: Path) -> None:
    settings = FlowSettings(database=open_folder / "flow.sqlite3")
    run_id = await ended(settings)
    settings.database.chmod(0o400)
    with another_user(open_folder):
        for _ in range(2):
            await answers(settings, run_id)
        with pytest.raises(StoreReadOnly):
            async with FlowService(settings):
                pass


async def test_a_folder_that_cannot_be_written_is_read_while_its_database_is_open(open_folder: Path) -> None:
    settings = FlowSettings(database=open_folder / "flow.sqlite3")
    async with FlowService(settings, agents=[work]) as service:
        run = await service.execute_flow(workflow_def=ONE)
        assert (await service.wait(run.run_id, timeout_s=10)).state == "completed"
        open_folder.chmod(0o500)
        with another_user(open_folder):
            await answers(settings, run.run_id)
        open_folder.chmod(0o700)


async def test_where_sqlite_cannot_read_without_writing_that_is_said(open_folder: Path) -> None:
    settings = FlowSettings(database=open_folder / "flow.sqlite3")
    await ended(settings)
    open_folder.chmod(0o500)
    with another_user(open_folder), pytest.raises(StoreReadOnly) as caught:
        async with FlowService(settings, drive=False):
            pass
    assert "cannot read it" in caught.value.message
    assert "copy" in (caught.value.next or "")


# Older files
async def test_only_a_server_brings_an_older_file_up(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FlowSettings(database=database)
    async with FlowService(settings):
        with monkeypatch.context() as newer:
            newer.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, "CREATE TABLE more (x INTEGER) STRICT;"))
            newer.setattr(module, "SCHEMA_LEVEL", SCHEMA_LEVEL + 1)
            with pytest.raises(StoreError) as caught:
                async with FlowService(settings, drive=False):
                    pass
        assert "server" in (caught.value.next or "")
        assert level(database) == SCHEMA_LEVEL
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, "CREATE TABLE more (x INTEGER) STRICT;"))
    monkeypatch.setattr(module, "SCHEMA_LEVEL", SCHEMA_LEVEL + 1)
    async with FlowService(settings):
        assert level(database) == SCHEMA_LEVEL + 1
    async with FlowService(settings, drive=False) as guest:
        assert (await guest.list_runs()).runs == []


async def test_a_server_that_is_too_old_for_the_file_takes_no_more_work_and_says_so(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FlowSettings(database=database)
    async with FlowService(settings, agents=[work]) as older:
        run = await older.execute_flow(workflow_def=ONE)
        assert (await older.wait(run.run_id, timeout_s=10)).state == "completed"
        monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, "CREATE TABLE more (x INTEGER) STRICT;"))
        monkeypatch.setattr(module, "SCHEMA_LEVEL", SCHEMA_LEVEL + 1)
        async with FlowService(settings, agents=[work]) as newer:
            with pytest.raises(StoreTooNew):
                await older.execute_flow(workflow_def=ONE)
            run = await newer.execute_flow(workflow_def=ONE)
            assert (await newer.wait(run.run_id, timeout_s=10)).state == "completed"


def level(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


# Who drives
def server(name: str = "srv_1") -> Server:
    return Server.here(name, "the server", 1.0)


def lock_of(database: Path, name: str = "srv_1") -> Path:
    return Path(f"{database}.{name}")


async def test_a_servers_lock_says_who_it_is_for_as_long_as_it_lives(database: Path) -> None:
    async with FlowService(FlowSettings(database=database), holder="the server"):
        (driver,) = drivers_of(database)
        assert (driver["holder"], driver["pid"]) == ("the server", os.getpid())
    assert drivers_of(database) == []
    assert [path.name for path in database.parent.iterdir() if ".srv_" in path.name] == []


async def test_a_server_starts_although_somebody_asks_for_its_lock(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = FileLock(lock_of(database))
    assert asker.try_acquire()
    tries = 0
    try_acquire = lock._try_lock

    def watched(descriptor: int, *, shared: bool = False) -> bool:
        nonlocal tries
        tries += 1
        if tries == 3:
            asker.release()
        return try_acquire(descriptor, shared=shared)

    monkeypatch.setattr(lock, "_try_lock", watched)
    held = hold(database, server())
    assert held.read()["holder"] == "the server"
    assert tries >= 3
    for one in (asker, held):
        one.close()


async def test_a_lock_that_is_swept_away_before_it_is_held_is_made_anew(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = FileLock.acquire
    swept = 0

    def late(lock: FileLock, timeout_s: float) -> None:
        nonlocal swept
        swept += 1
        if swept == 1:
            sweep(database, [])
        acquire(lock, timeout_s)

    monkeypatch.setattr(FileLock, "acquire", late)
    held = hold(database, server())
    assert swept == 2
    assert is_held(database, "srv_1")
    held.close()


async def test_locks_of_dead_processes_are_swept_away_and_those_of_the_living_are_not(database: Path) -> None:
    held = hold(database, server())
    for name in ("srv_2", "srv_3"):
        lock_of(database, name).touch()
    other = database.with_name("other.sqlite3.srv_4")
    other.touch()
    sweep(database, ["srv_3"])
    assert [lock_of(database, f"srv_{n}").exists() for n in (1, 2, 3)] == [True, False, True]
    assert other.exists()
    held.close()
    forget(database, "srv_1")
    assert drivers_of(database) == []


async def test_those_who_ask_for_the_holder_do_not_take_each_other_for_it(tmp_path: Path) -> None:
    path = tmp_path / "database.srv_1"
    assert holder_of(path) is None
    assert not path.exists()
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert holder_of(path) is None
    os.close(descriptor)


async def test_a_holder_of_another_user_may_be_there(unprivileged: Path) -> None:
    path = unprivileged / "database.srv_1"
    path.touch(0o000)
    assert holder_of(path) == {}


async def test_where_a_lock_cannot_be_asked_for_its_holder_may_be_there(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any, **__: Any) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    lock_of(database).touch()
    monkeypatch.setattr(lock, "_try_lock", no_locks)
    assert holder_of(lock_of(database)) == {}
    assert is_held(database, "srv_1")
    sweep(database, [])
    assert lock_of(database).exists()


async def test_what_a_lock_says_is_what_was_written_last(tmp_path: Path) -> None:
    held = FileLock(tmp_path / "database.srv_1")
    assert held.try_acquire()
    for content in ({"holder": "a server with a long name", "pid": 1}, {"pid": 2}, {}):
        held.write(content)
        assert held.read() == content
        assert holder_of(held.path) == content
    held.close()
    assert holder_of(held.path) is None


async def test_an_answer_asks_for_the_holder_once(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def drivers(database: Path) -> list[Any]:
        nonlocal asked
        asked += 1
        return []

    monkeypatch.setattr("contexten.extensions.flow.core.drivers_of", drivers)
    async with FlowService(FlowSettings(database=database), agents=[work], drive=False) as guest:
        for name in ("one", "two", "three"):
            await guest.create_flow(flow_id=name, workflow_def=ONE)
            await guest.execute_flow(flow_id=name)
        for ask in (guest.list_runs, guest.list_flows):
            asked = 0
            await ask()
            assert asked == 1


# Closing
@pytest.fixture
async def unfolded(hand: Hand, tmp_path: Path) -> Path:
    """A database as a crash leaves it: much of it is in SQLite's journal only."""
    await hand.running()
    copy = tmp_path / "copy.sqlite3"
    for suffix in ("", "-wal"):
        shutil.copy(f"{hand.store.path}{suffix}", f"{copy}{suffix}")
    assert Path(f"{copy}-wal").stat().st_size
    return copy


async def test_who_only_reads_folds_nothing_in(unfolded: Path) -> None:
    content, journal = unfolded.read_bytes(), Path(f"{unfolded}-wal").read_bytes()
    assert verify(unfolded).runs == 1
    assert FlowScheduler(settings=FlowSettings(database=unfolded)).get_scheduler_status()["running_flows"] == 1
    assert unfolded.read_bytes() == content
    assert Path(f"{unfolded}-wal").read_bytes() == journal


async def test_asking_for_the_scheduler_makes_no_database(database: Path) -> None:
    status = FlowScheduler(settings=FlowSettings(database=database)).get_scheduler_status()
    assert status["pending_flows"] == 0
    assert not database.exists()


async def test_connections_that_may_fold_are_closed_locked(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    closed: list[tuple[bool, bool]] = []

    class Connection(sqlite3.Connection):
        may_write = True

        def close(self) -> None:
            descriptor = os.open(f"{database}.lock", os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                closed.append((self.may_write, True))
            else:
                closed.append((self.may_write, False))
            finally:
                os.close(descriptor)
            super().close()

    def watched(address: Any, *arguments: Any, **options: Any) -> Any:
        connection = connect(address, *arguments, factory=Connection, **options)
        connection.may_write = "mode=ro" not in str(address)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    async with FlowService(FlowSettings(database=database), agents=[work]) as service:
        await service.verify()
    assert (True, True) in closed
    assert (True, False) not in closed
    assert (False, False) in closed
