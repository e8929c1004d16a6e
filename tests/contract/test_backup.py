"""A backup is one moment of a database that is in use, whole or not there; and a database goes back to one."""

from __future__ import annotations

import signal
import sqlite3
import stat
import sys
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from contexten.extensions.flow import FlowManager, FlowService, FlowSettings
from contexten.extensions.flow.errors import (
    InvalidArguments,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreTooNew,
)
from contexten.extensions.flow.store import Store, copying
from contexten.extensions.flow.store import database as module
from contexten.extensions.flow.store.backup import backup, backup_into
from contexten.extensions.flow.store.restore import restore
from contexten.extensions.flow.store.verify import verify

from .conftest import Hand

pytestmark = pytest.mark.anyio

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HELD = {"stages": [{"name": "s", "tasks": [{"name": "held", "type": "test", "required_tools": ["work"]}]}]}

WAIT = {"stages": [{"name": "s", "tasks": [{"name": "t", "type": "wait", "parameters": {"seconds": 0}}]}]}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Where a backup goes."""
    return tmp_path / "copies" / "copy.sqlite3"


@pytest.fixture(autouse=True)
def _folder_for_copies(copy: Path) -> None:
    copy.parent.mkdir()


class Holder:
    """Holds its tasks until it is opened."""

    name = "holder"
    agent_type = "test"
    tools = ("work",)
    capacity = 10

    def __init__(self) -> None:
        self.opened, self.reached = anyio.Event(), anyio.Event()

    async def run(self, task: Any, context: Any) -> int:
        self.reached.set()
        await self.opened.wait()
        return 42


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page a step."""
    monkeypatch.setattr(copying, "_PAGES", 1)


def copied_runs(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


# Backup
@pytest.mark.usefixtures("small_steps")
async def test_a_backup_is_one_moment_while_others_commit_between_all_its_steps(hand: Hand, copy: Path) -> None:
    for _ in range(20):
        await hand.submit()
    steps = 0

    def commit(_left: int, _total: int) -> None:
        nonlocal steps
        steps += 1
        assert steps < 1000  # it would begin anew with each commit, for ever
        anyio.from_thread.run(hand.submit)

    with anyio.fail_after(60):
        made = await anyio.to_thread.run_sync(partial(backup, hand.store.path, copy, on_step=commit))
    assert steps > 20
    assert await hand.count("runs") == 20 + steps
    assert made.found.runs == copied_runs(copy) == 20
    assert verify(copy).problems == []


async def test_many_backups_of_a_busy_service_are_all_sound(database: Path, copy: Path) -> None:
    settings = FlowSettings(database=database, durability="process", stop_grace_s=0.1)
    is_over = False
    async with FlowService(settings) as service:

        async def keep_running() -> None:
            while not is_over:
                await service.run_flow(workflow_def=WAIT)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(keep_running)
                reports = [await service.backup(copy.with_name(f"{n}.sqlite3")) for n in range(8)]
                is_over = True
    assert [report.runs for report in reports] == sorted(report.runs for report in reports)
    assert reports[-1].runs > reports[0].runs
    for report in reports:
        assert verify(Path(report.path)).problems == []


async def test_a_backup_is_one_file_for_this_user_that_reading_leaves_alone(hand: Hand, copy: Path) -> None:
    await hand.submit()
    made = backup(hand.store.path, copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert made.size == copy.stat().st_size
    before = copy.read_bytes()
    assert verify(copy).runs == 1
    assert copy.read_bytes() == before
    assert list(copy.parent.iterdir()) == [copy]


async def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_overwritten(hand: Hand, copy: Path) -> None:
    backup(hand.store.path, copy)
    await hand.submit()
    with pytest.raises(InvalidArguments):
        backup(hand.store.path, copy)
    assert copied_runs(copy) == 0
    backup(hand.store.path, copy, overwrite=True)
    assert copied_runs(copy) == 1
    assert list(copy.parent.iterdir()) == [copy]


async def test_no_backup_overwrites_a_database_that_servers_use(hand: Hand, tmp_path: Path) -> None:
    other = Store(tmp_path / "other.sqlite3")
    await other.open()
    await other.close()
    for target in (hand.store.path, other.path):
        with pytest.raises(InvalidArguments):
            backup(hand.store.path, target, overwrite=True)
    with pytest.raises(InvalidArguments):
        backup(hand.store.path, tmp_path, overwrite=True)


async def test_two_backups_to_one_name_at_once_do_not_mix(hand: Hand, copy: Path) -> None:
    await hand.submit()

    def again(_left: int, _total: int) -> None:
        with pytest.raises(StoreBusy):
            backup(hand.store.path, copy)

    assert backup(hand.store.path, copy, on_step=again).found.runs == 1
    assert list(copy.parent.iterdir()) == [copy]


KILLED = """
import os, signal, sys
from pathlib import Path
from contexten.extensions.flow.store import copying
from contexten.extensions.flow.store.backup import backup
copying._PAGES = 1
def kill_half_way(left, total):
    if left < total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
backup(Path(sys.argv[1]), Path(sys.argv[2]), on_step=kill_half_way)
"""


async def test_a_backup_that_is_killed_half_way_leaves_no_file_of_that_name(hand: Hand, copy: Path) -> None:
    await hand.submit()
    done = await anyio.run_process([sys.executable, "-c", KILLED, str(hand.store.path), str(copy)], check=False)
    assert done.returncode == -signal.SIGKILL
    (half,) = copy.parent.iterdir()
    assert half.name == "copy.sqlite3.partial"
    assert backup(hand.store.path, copy).found.runs == 1
    assert list(copy.parent.iterdir()) == [copy]


@pytest.mark.usefixtures("small_steps")
async def test_cancelling_gives_a_backup_up(store: Store, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FlowSettings(database=store.path)
    steps = 0
    check = anyio.from_thread.check_cancelled

    async with FlowService(settings, drive=False) as service:
        with anyio.CancelScope() as scope:

            def cancel_and_check() -> None:
                nonlocal steps
                steps += 1
                anyio.from_thread.run_sync(scope.cancel)
                check()

            monkeypatch.setattr(anyio.from_thread, "check_cancelled", cancel_and_check)
            with anyio.fail_after(30):
                await service.backup(copy)
    assert scope.cancelled_caught
    assert steps == 1
    assert list(copy.parent.iterdir()) == []


async def test_a_damaged_database_gives_no_backup(hand: Hand, copy: Path) -> None:
    for _ in range(50):
        await hand.submit()
    await hand.store.close()
    with closing(sqlite3.connect(hand.store.path)) as connection:
        connection.execute("UPDATE runs SET state = 'completed', output = '1', ended_at = 3.0 WHERE run_id = 'run_1'")
        connection.commit()
    with pytest.raises(StoreCorrupt, match="run_1"):
        backup(hand.store.path, copy)
    content = bytearray(hand.store.path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = bytes(8192)
    hand.store.path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        backup(hand.store.path, copy)
    assert list(copy.parent.iterdir()) == []


async def test_a_folder_that_is_missing_or_cannot_be_written_is_told(unprivileged: Path) -> None:
    store = Store(unprivileged / "flow.sqlite3")
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="copy cannot be written"):
        backup(store.path, unprivileged / "none" / "copy.sqlite3")
    unprivileged.chmod(0o500)
    with pytest.raises(StoreReadOnly, match="copy cannot be written"):
        backup(store.path, unprivileged / "copy.sqlite3")


async def test_a_folder_keeps_the_newest_backups_and_whatever_else_is_there(hand: Hand, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    made = []
    for day in (3, 1, 2):
        done, _ = backup_into(hand.store.path, folder, AT.replace(day=day))
        made.append(done.path)
    assert [path.name for path in made] == [f"flow-2026030{day}T120000Z.sqlite3" for day in (3, 1, 2)]
    (folder / "flow-notes.sqlite3").touch()
    done, removed = backup_into(hand.store.path, folder, AT.replace(day=4), keep=2)
    assert sorted(removed) == sorted(made[1:])
    assert sorted(folder.iterdir()) == sorted([made[0], done.path, folder / "flow-notes.sqlite3"])
    with pytest.raises(InvalidArguments):
        backup_into(hand.store.path, folder, AT.replace(day=4), keep=2)


async def test_who_reads_for_long_holds_no_end_up(hand: Hand) -> None:
    with closing(sqlite3.connect(f"{hand.store.path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        run_id = await hand.submit()
        with anyio.fail_after(3):  # SQLite's own patience is 5 s
            await hand.store.close()
    again = Store(hand.store.path)
    await again.open()
    assert await again.row("SELECT 1 FROM runs WHERE run_id = ?", (run_id,))
    await again.close()


async def test_a_manager_makes_backups(database: Path, copy: Path) -> None:
    async with FlowManager(settings=FlowSettings(database=database, stop_grace_s=0.1)) as manager:
        await manager.create_flow(name="kept", workflow_def=WAIT)
        made = await manager.backup(str(copy))
    assert made == {"path": str(copy), "size": copy.stat().st_size, "runs": 0, "events": 0}


# Restore
@pytest.fixture
async def interrupted(database: Path, copy: Path) -> tuple[str, str]:
    """The id of a run that was under way at the backup, and a cursor of the time after it, when that went on."""
    holder = Holder()
    async with FlowService(FlowSettings(database=database, stop_grace_s=0.1), agents=[holder]) as service:
        run = await service.execute_flow(workflow_def=HELD)
        with anyio.fail_after(20):
            await holder.reached.wait()
            await service.backup(copy)
            holder.opened.set()
            done = await service.wait(run.run_id)
        await service.create_flow(workflow_def=HELD, flow_id="later")
    return run.run_id, str(done.cursor)


async def test_a_run_that_was_under_way_at_the_backup_goes_on_after_the_restore(
    interrupted: tuple[str, str], database: Path, copy: Path
) -> None:
    run_id, _ = interrupted
    done = restore(copy, database, AT)
    assert done.unfinished == 1
    assert done.replaced == database.with_name("flow.sqlite3.replaced-20260301T120000Z")
    assert verify(done.replaced).runs == 1
    holder = Holder()
    async with FlowService(FlowSettings(database=database, stop_grace_s=0.1), agents=[holder]) as service:
        assert (await service.list_flows()).flows == []  # saved after the backup
        with anyio.fail_after(20):
            await holder.reached.wait()
            holder.opened.set()
            ended = await service.wait(run_id)
    assert ended.state == "completed"
    assert verify(database).problems == []


async def test_a_cursor_of_the_time_before_a_restore_is_answered_with_a_reset(
    interrupted: tuple[str, str], database: Path, copy: Path
) -> None:
    run_id, cursor = interrupted
    restore(copy, database, AT)
    async with FlowService(FlowSettings(database=database), drive=False) as service:
        events = await service.events(run_id, since=cursor)
    assert events.reset
    assert events[0].type == "run.scheduled"


async def test_restoring_twice_gives_the_same_database_and_keeps_both_others(
    interrupted: tuple[str, str], database: Path, copy: Path
) -> None:
    first, second = (restore(copy, database, AT) for _ in range(2))
    assert (first.found.events, first.unfinished) == (second.found.events, second.unfinished)
    assert first.replaced != second.replaced
    assert all(path is not None and path.exists() for path in (first.replaced, second.replaced))
    assert verify(database).problems == []


async def test_a_database_that_a_server_drives_is_not_replaced(hand: Hand, copy: Path, tmp_path: Path) -> None:
    backup(hand.store.path, copy)
    driven = tmp_path / "driven.sqlite3"
    async with FlowService(FlowSettings(database=driven, stop_grace_s=0.1), holder="a busy server"):
        before = driven.stat().st_ino
        with pytest.raises(StoreBusy, match="a busy server"):
            restore(copy, driven, AT)
        assert driven.stat().st_ino == before
    assert restore(copy, driven, AT).replaced is not None


async def test_a_restore_through_a_link_is_one_of_the_database_itself(hand: Hand, copy: Path, tmp_path: Path) -> None:
    (link := tmp_path / "link.sqlite3").symlink_to(hand.store.path)
    backup(hand.store.path, copy)
    settings = FlowSettings(database=hand.store.path)
    with anyio.fail_after(20):
        async with FlowService(settings):
            with pytest.raises(StoreBusy, match="in use"):
                restore(copy, link, AT)
    await hand.store.close()
    done = restore(copy, link, AT)
    assert link.is_symlink()
    assert done.replaced is not None
    assert done.replaced.name.startswith(hand.store.path.name)


async def test_a_server_that_has_the_old_file_open_writes_nothing_into_either(
    hand: Hand, copy: Path, tmp_path: Path
) -> None:
    await hand.submit()
    backup(hand.store.path, copy)
    done = restore(copy, hand.store.path, AT)
    with pytest.raises(StoreError, match="replaced"):
        await hand.submit()
    assert copied_runs(hand.store.path) == 1
    assert done.replaced is not None
    assert copied_runs(done.replaced) == 1


async def test_a_backup_comes_back_where_there_is_no_database_any_more(hand: Hand, copy: Path, tmp_path: Path) -> None:
    await hand.submit()
    backup(hand.store.path, copy)
    elsewhere = tmp_path / "new" / "flow.sqlite3"
    done = restore(copy, elsewhere, AT)
    assert done.replaced is None
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["flow.sqlite3", "flow.sqlite3.lock"]
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600


async def test_a_damaged_database_is_kept_whole_with_what_its_journal_holds(hand: Hand, copy: Path) -> None:
    backup(hand.store.path, copy)
    database = hand.store.path
    await hand.store.close()
    database.write_bytes(b"not a database" * 1000)
    Path(f"{database}-wal").write_bytes(b"journal")
    done = restore(copy, database, AT)
    assert done.replaced is not None
    assert done.replaced.read_bytes() == b"not a database" * 1000
    assert Path(f"{done.replaced}-wal").read_bytes() == b"journal"
    assert not Path(f"{database}-wal").exists()
    assert verify(database).problems == []


async def test_where_a_backup_cannot_take_the_databases_place_the_database_is_as_it_was(
    hand: Hand, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(hand.store.path, copy)
    database = hand.store.path
    await hand.store.close()
    database.write_bytes(b"not a database" * 1000)
    Path(f"{database}-wal").write_bytes(b"journal")
    replace = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if target == database:
            raise PermissionError(1, "not permitted")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(StoreError, match="not permitted"):
        restore(copy, database, AT)
    assert database.read_bytes() == b"not a database" * 1000
    assert Path(f"{database}-wal").read_bytes() == b"journal"
    assert not list(database.parent.glob("*.replaced-*"))


@pytest.mark.parametrize("content", [b"", b"nonsense " * 1000, None], ids=["empty", "nonsense", "of another program"])
async def test_what_is_no_backup_replaces_nothing(hand: Hand, copy: Path, content: bytes | None) -> None:
    database = hand.store.path
    await hand.store.close()
    if content is None:
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
    else:
        copy.write_bytes(content)
    before = database.stat().st_ino
    with pytest.raises(StoreCorrupt):
        restore(copy, database, AT)
    for missing in (copy.with_name("missing"), database):
        with pytest.raises(InvalidArguments):
            restore(missing, database, AT)
    assert database.stat().st_ino == before
    assert not list(database.parent.glob("*.restoring*"))


async def test_a_backup_of_an_older_version_is_brought_up_and_one_of_a_newer_is_refused(
    tmp_path: Path, copy: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", module.MIGRATIONS[:3])
        patch.setattr(module, "SCHEMA_LEVEL", 3)
        old = Store(tmp_path / "old.sqlite3")
        await old.open(drives=True)
        await old.close()
    backup(old.path, copy)  # a backup before the first start of a new version
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 3
    restore(copy, database, AT)
    store = Store(database)
    await store.open()  # who does not drive brings nothing up
    await store.close()
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(f"PRAGMA user_version = {module.SCHEMA_LEVEL + 1}")
    with pytest.raises(StoreTooNew):
        restore(copy, database, AT)


CUT_OFF = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from contexten.extensions.flow.store.restore import restore
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
restore(Path(sys.argv[1]), Path(sys.argv[2]), datetime(2026, 3, 1, tzinfo=UTC))
"""


async def test_a_restore_that_is_killed_before_its_last_step_has_changed_nothing(
    interrupted: tuple[str, str], database: Path, copy: Path
) -> None:
    done = await anyio.run_process([sys.executable, "-c", CUT_OFF, str(copy), str(database)], check=False)
    assert done.returncode == -signal.SIGKILL
    async with FlowService(FlowSettings(database=database), drive=False) as service:
        assert [flow.flow_id for flow in (await service.list_flows()).flows] == ["later"]
    restore(copy, database, AT)
    async with FlowService(FlowSettings(database=database), drive=False) as service:
        assert (await service.list_flows()).flows == []
    assert not list(database.parent.glob("*.restoring*"))
