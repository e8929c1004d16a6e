"""What may lie at the database's place, who may hold it, and what is said of it."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import anyio
import psutil
import pytest

from contexten.extensions.flow import FlowManager
from contexten.extensions.flow.errors import (
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreTooNew,
)
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store import SCHEMA_LEVEL, Store
from contexten.extensions.flow.store.servers import drivers_of

pytestmark = pytest.mark.anyio


async def refused(path: Path, kind: type[StoreError]) -> StoreError:
    """Open it and be refused, in words that show no path and say what to do."""
    store = Store(path)
    with pytest.raises(StoreError) as caught:
        await store.open(drives=True)
    assert type(caught.value) is kind
    assert caught.value.next
    assert str(path.parent) not in caught.value.message + caught.value.next
    await store.close()
    return caught.value


async def made(path: Path) -> None:
    store = Store(path)
    await store.open()
    await store.close()


async def test_a_database_is_made_with_its_folders_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "flow.sqlite3"
    await made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_empty_file_becomes_a_database(database: Path) -> None:
    database.touch()
    await made(database)
    assert database.stat().st_size > 0


async def test_a_database_that_cannot_be_written_is_refused(unprivileged: Path) -> None:
    path = unprivileged / "flow.sqlite3"
    await made(path)
    path.chmod(0o400)
    await refused(path, StoreReadOnly)
    path.chmod(0o600)
    await made(path)


async def test_a_folder_that_cannot_be_written_is_refused(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    await refused(unprivileged / "flow.sqlite3", StoreReadOnly)
    await refused(unprivileged / "deeper" / "flow.sqlite3", StoreReadOnly)


async def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    error = await refused(tmp_path, StoreError)
    assert "folder" in error.message


async def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await refused(tmp_path / "file" / "flow.sqlite3", StoreError)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but some text\n" * 200, b"SQLite format 3\x00" + b"\xff" * 8000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    database.chmod(0o644)
    await refused(database, StoreCorrupt)
    assert database.read_bytes() == content
    assert stat.S_IMODE(database.stat().st_mode) == 0o644


async def test_another_programs_database_is_refused_and_left_alone(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    database.chmod(0o644)
    content = database.read_bytes()
    error = await refused(database, StoreCorrupt)
    assert "another program" in error.message
    assert database.read_bytes() == content  # not even its journal mode
    assert stat.S_IMODE(database.stat().st_mode) == 0o644
    assert not Path(f"{database}-wal").exists()


async def test_another_programs_database_with_a_level_of_its_own_is_refused_too(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    await refused(database, StoreCorrupt)


async def test_a_newer_database_is_refused_and_left_alone(database: Path) -> None:
    await made(database)
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA user_version = {SCHEMA_LEVEL + 1}")
    connection.close()
    content = database.read_bytes()
    error = await refused(database, StoreTooNew)
    assert str(SCHEMA_LEVEL + 1) in error.message
    assert database.read_bytes() == content


async def test_a_damaged_page_is_told_as_damage(database: Path) -> None:
    settings = FlowSettings(database=database)
    async with FlowService(settings, agents=[work]) as service:
        for number in range(50):
            await service.create_flow(workflow_def=flow(f"step_{number}"))
    content = bytearray(database.read_bytes())
    page = 4096
    for place in range(page, len(content), page):
        content[place : place + 200] = b"\xa5" * 200
    database.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        await use(settings)


async def use(settings: FlowSettings) -> None:
    async with FlowService(settings, agents=[work]) as service:
        await service.create_flow(workflow_def=flow("one_more"))
        await service.list_flows()


# Who drives
async def work(task: object, context: object) -> int:
    return 1


def flow(name: str) -> dict[str, object]:
    return {"stages": [{"name": "s", "tasks": [{"name": name, "type": "test", "required_tools": ["work"]}]}]}


async def test_a_service_that_failed_to_open_holds_nothing(database: Path) -> None:
    database.write_bytes(b"x" * 5000)
    settings = FlowSettings(database=database)
    with pytest.raises(StoreCorrupt):
        async with FlowService(settings):
            pass
    database.unlink()
    async with FlowService(settings):
        pass


async def test_the_same_service_object_can_be_opened_again(database: Path) -> None:
    service = FlowService(FlowSettings(database=database), agents=[work])
    for _ in range(2):
        async with service:
            run = await service.execute_flow(workflow_def=flow("again"))
            assert (await service.wait(run.run_id, timeout_s=10)).state == "completed"
    assert not service.is_open


async def test_nothing_is_left_open_after_closing(database: Path) -> None:
    process = psutil.Process()
    descriptors, threads = process.num_fds(), set(threading.enumerate())
    for _ in range(3):
        async with FlowService(FlowSettings(database=database), agents=[work]) as service:
            run = await service.execute_flow(workflow_def=flow("one"))
            await service.wait(run.run_id, timeout_s=10)
    # All but those that asyncio keeps for blocking calls.
    new = [it for it in threading.enumerate() if it not in threads and not it.name.startswith("asyncio_")]
    for thread in new:
        thread.join(30)  # it was told to end; that takes it a moment
    assert process.num_fds() <= descriptors
    assert [thread.name for thread in new if thread.is_alive()] == []


async def test_a_link_to_a_database_is_that_database(database: Path, tmp_path: Path) -> None:
    (link := tmp_path / "link.sqlite3").symlink_to(database)
    with anyio.fail_after(20):
        async with FlowManager(settings=FlowSettings(database=database)) as manager:
            async with FlowManager(settings=FlowSettings(database=link)) as other:
                assert await other.service() is await manager.service()
            async with FlowService(FlowSettings(database=link)):  # locks lie beside the file, not the link
                assert [len(drivers_of(path)) for path in (database, link)] == [2, 2]
    assert not list(tmp_path.glob("link.sqlite3.*"))


async def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StoreError, match="cannot be followed"):
        FlowService(FlowSettings(database=tmp_path / "a"))
    with pytest.raises(StoreError, match="no such user"):
        FlowService(FlowSettings(database=Path("~nobody-of-that-name/flow.sqlite3")))
