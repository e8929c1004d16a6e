"""Changes of files as events: what is told, once, and from where alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

from contexten.extensions.flow.clock import SystemClock, read_boot_id
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.triggers import files
from contexten.extensions.flow.triggers.configs import FileConfig
from contexten.extensions.flow.triggers.files import check_path, watch_files
from contexten.extensions.flow.triggers.model import Trigger, TriggerEvent, TriggerKind

pytestmark = pytest.mark.anyio

Events = MemoryObjectReceiveStream[TriggerEvent]
Watch = Callable[..., AbstractAsyncContextManager[Events]]


class QuickClock(SystemClock):
    """Does not wait ten seconds for a folder to come back, but until it is told that it has."""

    __slots__ = ("is_back", "is_restarted", "is_waited_for")

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for, self.is_back, self.is_restarted = anyio.Event(), anyio.Event(), anyio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds < 5:
            await super().sleep(seconds)
            if seconds == files._RESTART_S:
                self.is_restarted.set()
        else:
            self.is_waited_for.set()
            await self.is_back.wait()


class SetClock(SystemClock):
    """Is set while it runs, as by NTP, or starts again with the machine."""

    __slots__ = ("uptime", "wall")

    def __init__(self) -> None:
        super().__init__()
        self.wall = self.uptime = 0.0

    def timestamp(self) -> float:
        return super().timestamp() + self.wall

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.wall)

    def monotonic(self) -> float:
        return super().monotonic() + self.uptime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed" / "in"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def watch(folder: Path) -> Watch:
    @asynccontextmanager
    async def watching(clock: SystemClock | None = None, *, room: int = 100, **config: Any) -> AsyncIterator[Events]:
        send, receive = anyio.create_memory_object_stream[TriggerEvent](room)

        async def deliver(trigger: Trigger, event: TriggerEvent) -> None:
            await send.send(event)

        parsed = FileConfig(**{"path": "in", "settle_s": 0.05, **config})
        trigger = Trigger(trigger_id="trg_1", name="files", kind=TriggerKind.FILE, config={}, flow_id="f")
        with anyio.fail_after(20), send, receive:
            async with anyio.create_task_group() as group:
                await group.start(watch_files, trigger, parsed, deliver, [folder.parent], clock or SystemClock())
                yield receive
                group.cancel_scope.cancel()

    return watching


async def test_a_new_file_is_told_once_with_what_a_flow_needs_to_read_it(folder: Path, watch: Watch) -> None:
    async with watch() as events:
        (folder / "a.csv").write_text("1")
        event = await events.receive()
    assert (event.kind, event.type) == ("file", "added")
    assert {key: event.payload[key] for key in ("path", "name", "change", "size")} == {
        "path": "in/a.csv",
        "name": "a.csv",
        "change": "added",
        "size": 1,
    }


async def test_a_change_and_a_deletion_are_told_where_they_are_asked_for(folder: Path, watch: Watch) -> None:
    (folder / "a.csv").write_text("1")
    async with watch(changes=("modified", "deleted")) as events:
        (folder / "a.csv").write_text("22")
        assert ((event := await events.receive()).type, event.payload["size"]) == ("modified", 2)
        (folder / "a.csv").unlink()
        assert ((event := await events.receive()).type, event.payload["size"]) == ("deleted", None)


async def test_files_that_match_no_pattern_or_are_hidden_are_left_alone(folder: Path, watch: Watch) -> None:
    async with watch(patterns=("*.csv", "sub/*")) as events:
        (folder / ".hidden.csv").write_text("1")
        (folder / "b.txt").write_text("1")
        (folder / "directory.csv").mkdir()
        (folder / "c.csv").write_text("1")
        assert (await events.receive()).payload["name"] == "c.csv"
    (folder / "sub").mkdir()
    async with watch(patterns=("sub/*",)) as events:
        (folder / "other.csv").write_text("1")
        (folder / "sub" / "d").write_text("1")
        assert (await events.receive()).payload["path"] == "in/sub/d"


async def test_a_folder_that_comes_with_files_brings_them(folder: Path, watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "batch" / "deep").mkdir(parents=True)
    (tmp_path / "batch" / "deep" / "a.csv").write_text("1")
    async with watch() as events:
        (tmp_path / "batch").rename(folder / "batch")
        assert (await events.receive()).payload["path"] == "in/batch/deep/a.csv"
    async with watch(recursive=False) as events:
        (folder / "batch" / "b.csv").write_text("1")
        (folder / "c.csv").write_text("1")
        assert (await events.receive()).payload["path"] == "in/c.csv"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
async def test_a_name_that_is_no_text_ends_no_watch(
    folder: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = QuickClock()
    async with watch(clock=clock) as events:
        (folder / "before.csv").write_text("1")
        assert (await events.receive()).payload["name"] == "before.csv"
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.csv")).write_text("1")
        await clock.is_restarted.wait()
        (folder / "after.csv").write_text("1")
        assert (await events.receive()).payload["name"] == "after.csv"
    assert "is not watched now" in caplog.text


def are_one(one: TriggerEvent, other: TriggerEvent) -> bool:
    """Whether the second is known when the first is recorded, whichever of them that is."""
    return _is_known(one, other) and _is_known(other, one)


def _is_known(event: TriggerEvent, recorded: TriggerEvent) -> bool:
    assert event.same_ids is not None
    return event.same_ids[0] <= recorded.id <= event.same_ids[1]


async def test_what_several_servers_see_is_one_event(folder: Path, watch: Watch) -> None:
    async with watch() as here, watch() as there:
        (folder / "a.csv").write_text("1")
        first = [await here.receive(), await there.receive()]
        os.utime(folder / "a.csv", ns=(1, 1))
        second = [await here.receive(), await there.receive()]
    assert are_one(*first)
    assert are_one(*second)
    assert not are_one(first[0], second[0])


async def test_a_deletion_is_one_event_although_more_happens_before_a_slower_server_looks(
    folder: Path, watch: Watch
) -> None:
    (folder / "a.csv").write_text("1")
    (folder / "b.csv").write_text("1")
    async with watch(changes=("modified", "deleted")) as quick, watch(changes=("deleted",), settle_s=0.5) as slow:
        (folder / "a.csv").write_text("22")
        assert (await quick.receive()).type == "modified"  # which the other one never sees
        (folder / "a.csv").unlink()
        told = await quick.receive()
        (folder / "b.csv").unlink()
        assert are_one(told, await slow.receive())
        other = await quick.receive()
        assert not are_one(told, other)
        assert are_one(other, await slow.receive())


async def test_a_new_file_is_one_event_although_its_flow_changes_it_before_a_slower_server_looks(
    folder: Path, watch: Watch
) -> None:
    async with watch(changes=("added",)) as quick, watch(changes=("added",), settle_s=0.3) as slow:
        (folder / "a.csv").write_text("1")
        told = await quick.receive()
        (folder / "a.csv").write_text("22")
        (folder / "a.csv").chmod(0o600)
        assert are_one(told, await slow.receive())


async def test_a_file_that_is_moved_away_and_back_is_new_each_time(folder: Path, watch: Watch, tmp_path: Path) -> None:
    told = []
    (tmp_path / "a.csv").write_text("1")
    async with watch(changes=("added", "deleted")) as here, watch(changes=("added", "deleted")) as there:
        for _ in range(2):
            (tmp_path / "a.csv").rename(folder / "a.csv")
            told.append([await here.receive(), await there.receive()])
            (folder / "a.csv").rename(tmp_path / "a.csv")
            told.append([await here.receive(), await there.receive()])
    assert [here.type for here, _ in told] == ["added", "deleted"] * 2
    assert all(are_one(here, there) for here, there in told)
    assert not are_one(told[0][0], told[2][0])
    assert not are_one(told[1][0], told[3][1])


async def test_no_change_is_lost_or_told_twice_when_the_wall_clock_is_set_back(folder: Path, watch: Watch) -> None:
    clock = SetClock()
    told = []
    async with watch(clock, changes=("added", "deleted")) as here, watch(clock, changes=("added", "deleted")) as there:
        for _ in range(2):
            (folder / "a.csv").write_text("1")
            told.append([await here.receive(), await there.receive()])
            (folder / "a.csv").unlink()
            told.append([await here.receive(), await there.receive()])
            clock.wall -= 60
    assert all(are_one(here, there) for here, there in told)
    assert not _is_known(told[2][0], told[0][0])
    assert not _is_known(told[3][0], told[1][0])


async def test_what_was_told_before_the_machine_started_again_is_another_change(
    folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    told = []
    for boot_id in ("first", "second"):
        monkeypatch.setattr(files, "read_boot_id", lambda boot_id=boot_id: boot_id)
        async with watch(clock, changes=("added",)) as events:
            (folder / "a.csv").write_text("1")
            told.append(await events.receive())
            (folder / "a.csv").unlink()
        clock.uptime -= 60
    assert not _is_known(told[1], told[0])


def test_processes_of_a_machine_share_its_monotonic_clock_and_know_its_start() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    there = subprocess.run(
        [sys.executable, "-c", "import time; print(time.monotonic())"], capture_output=True, check=True
    )
    assert before < float(there.stdout) < clock.monotonic()
    assert read_boot_id()


def test_where_the_system_has_no_id_of_its_start_the_time_of_that_stands_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_text(path: Path, **_: object) -> str:
        raise FileNotFoundError(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read_text)
        boot_id = read_boot_id.__wrapped__()
    assert 0 < int(boot_id) < SystemClock().timestamp()


async def test_an_old_version_that_is_put_back_is_a_change(folder: Path, watch: Watch, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(1, 1))
    (folder / "a.csv").write_text("first")
    told = []
    async with watch(changes=("modified",)) as events:
        for name in ("old", "new", "old"):
            shutil.copy2(tmp_path / name, tmp_path / "copy")
            (tmp_path / "copy").replace(folder / "a.csv")
            told.append(await events.receive())
    assert not are_one(told[0], told[2])


async def test_a_mode_or_another_link_is_no_change_of_a_file(folder: Path, watch: Watch, tmp_path: Path) -> None:
    (folder / "a.csv").write_text("1")
    (folder / "b.csv").write_text("1")
    async with watch() as events:
        (folder / "a.csv").chmod(0o600)
        os.link(folder / "a.csv", tmp_path / "link")
        (folder / "b.csv").write_text("22")
        assert (await events.receive()).payload["name"] == "b.csv"


async def test_what_goes_with_a_folder_is_told_of_and_again_when_it_comes_back(
    folder: Path, watch: Watch, tmp_path: Path
) -> None:
    (folder / "batch").mkdir()
    (folder / "batch" / "a.csv").write_text("1")
    async with watch(changes=("added", "deleted")) as events:
        (folder / "batch").rename(tmp_path / "batch")
        assert ((gone := await events.receive()).type, gone.payload["path"]) == ("deleted", "in/batch/a.csv")
        (tmp_path / "batch").rename(folder / "batch")
        assert ((back := await events.receive()).type, back.payload["path"]) == ("added", "in/batch/a.csv")


async def test_what_goes_with_a_folder_while_it_is_being_told_of_is_told_of_too(
    folder: Path, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_told, is_noted = anyio.Event(), anyio.Event()
    note_below, make_event = files._Watch._note_below, files._Watch._event

    async def note_below_and_say(watch: files._Watch, gone: Iterable[str]) -> None:
        names = list(gone)
        await note_below(watch, names)
        if names:
            is_noted.set()

    def make_event_and_say(watch: files._Watch, *args: Any) -> TriggerEvent:
        is_told.set()
        return make_event(watch, *args)

    monkeypatch.setattr(files._Watch, "_note_below", note_below_and_say)
    monkeypatch.setattr(files._Watch, "_event", make_event_and_say)
    (folder / "batch").mkdir()
    async with watch(room=0, changes=("added", "deleted")) as events:
        (folder / "batch" / "a.csv").write_text("1")
        await is_told.wait()
        (folder / "batch").rename(tmp_path / "batch")
        await is_noted.wait()
        assert [(await events.receive()).type for _ in range(2)] == ["added", "deleted"]


@pytest.mark.parametrize("is_deep", [True, False])
async def test_looking_for_files_in_what_went_holds_up_nobody(
    folder: Path, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_deep: bool
) -> None:
    threads: list[int] = []
    those_below = files._those_below

    def those_below_elsewhere(folders: AbstractSet[str], names: Iterable[str]) -> list[str]:
        threads.append(threading.get_ident())
        return those_below(folders, names)

    monkeypatch.setattr(files, "_those_below", those_below_elsewhere)
    (folder / "batch").mkdir()
    (folder / "batch" / "a.csv").write_text("1")
    async with watch(recursive=is_deep, changes=("added", "deleted")) as events:
        (folder / "batch").rename(tmp_path / "batch")
        if is_deep:
            assert (await events.receive()).payload["path"] == "in/batch/a.csv"
        (folder / "b.csv").write_text("1")
        assert (await events.receive()).payload["path"] == "in/b.csv"
    assert bool(threads) is is_deep
    assert threading.get_ident() not in threads


def test_files_are_found_in_folders_at_whatever_depth() -> None:
    names = ["/in/a/1", "/in/a/b/2", "/in/ab/3", "/in/4", "/in/a"]
    assert files._those_below({"/in/a", "/in/4", "/in/x"}, names) == ["/in/a/1", "/in/a/b/2"]


async def test_of_files_that_went_long_ago_nothing_is_kept(
    folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_KEPT_S", 0.0)
    told = []
    async with watch(changes=("added", "deleted")) as here, watch(changes=("added", "deleted")) as there:
        for name in ("a.csv", "b.csv", "a.csv"):
            (folder / name).write_text("1")
            told.append([await here.receive(), await there.receive()])
            (folder / name).unlink()
            told.append([await here.receive(), await there.receive()])
    assert all(are_one(here, there) for here, there in told)
    assert not are_one(told[0][0], told[4][0])
    assert not are_one(told[1][0], told[5][0])


async def test_one_file_is_followed_when_it_is_replaced(folder: Path, watch: Watch) -> None:
    target = folder / "state.json"
    target.write_text("1")
    async with watch(path="in/state.json", changes=("added", "modified")) as events:
        for content in ("22", "333"):
            (folder / "new").write_text(content)
            (folder / "new").replace(target)
            event = await events.receive()
            assert (event.payload["path"], event.payload["size"]) == ("in/state.json", len(content))


async def test_a_link_leads_nowhere(folder: Path, watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("1")
    async with watch() as events:
        (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
        (folder / "own.csv").write_text("1")
        assert (await events.receive()).payload["name"] == "own.csv"


@pytest.fixture
def is_known(monkeypatch: pytest.MonkeyPatch) -> anyio.Event:
    """Once the files of a watch were looked at."""
    is_known = anyio.Event()
    take_stock = files._Watch.take_stock

    async def take_stock_and_say(watch: files._Watch) -> None:
        await take_stock(watch)
        is_known.set()

    monkeypatch.setattr(files._Watch, "take_stock", take_stock_and_say)
    return is_known


async def test_a_folder_that_is_not_there_is_waited_for(folder: Path, watch: Watch, is_known: anyio.Event) -> None:
    clock = QuickClock()
    async with watch(clock=clock, path="in/later") as events:
        await clock.is_waited_for.wait()
        (folder / "later").mkdir()
        (folder / "later" / "old.csv").write_text("1")
        clock.is_back.set()
        await is_known.wait()
        (folder / "later" / "a.csv").write_text("1")
        assert (await events.receive()).payload["path"] == "in/later/a.csv"


async def test_what_changed_while_a_folder_was_away_is_told_when_it_is_back(
    folder: Path, watch: Watch, tmp_path: Path
) -> None:
    clock = QuickClock()
    (folder / "a.csv").write_text("1")
    async with watch(clock=clock, changes=("added", "deleted")) as events:
        folder.rename(tmp_path / "away")
        await clock.is_waited_for.wait()
        (tmp_path / "away" / "a.csv").rename(tmp_path / "away" / "b.csv")
        (tmp_path / "away").rename(folder)
        clock.is_back.set()
        told = [await events.receive(), await events.receive()]
        assert [(event.type, event.payload["name"]) for event in told] == [("deleted", "a.csv"), ("added", "b.csv")]


async def test_watching_takes_no_thread_from_others(watch: Watch) -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    before = limiter.total_tokens
    async with watch(), watch():
        assert limiter.total_tokens == before + 2
    assert limiter.total_tokens == before


@pytest.mark.parametrize("path", ["../in", "/etc", "in/../../x", "a\0b"])
def test_only_what_lies_below_an_allowed_folder_is_watched(folder: Path, path: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        check_path(FileConfig(path=path), [folder.parent])
    assert [issue.path for issue in refused.value.issues] == ["/config/path"]
    assert str(folder) not in refused.value.message


def test_without_an_allowed_folder_nothing_is_watched(folder: Path) -> None:
    with pytest.raises(InvalidArguments, match="allow_paths"):
        check_path(FileConfig(path="in"), [])
    check_path(FileConfig(path="in"), [folder.parent])
