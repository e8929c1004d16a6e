"""Changes of files as events: what is told, once, and from where alone."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

from contexten.extensions.flow.clock import SystemClock
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed" / "in"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def watch(folder: Path) -> Watch:
    @asynccontextmanager
    async def watching(clock: SystemClock | None = None, **config: Any) -> AsyncIterator[Events]:
        send, receive = anyio.create_memory_object_stream[TriggerEvent](100)

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


async def watched_again() -> None:
    """Once it is watched in a thread."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    while not limiter.borrowed_tokens:
        await anyio.lowlevel.checkpoint()


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
        await watched_again()
        (folder / "after.csv").write_text("1")
        assert (await events.receive()).payload["name"] == "after.csv"
    assert "is not watched now" in caplog.text


async def test_several_servers_give_one_change_one_id(folder: Path, watch: Watch) -> None:
    async with watch() as here, watch() as there:
        (folder / "a.csv").write_text("1")
        first = [await here.receive(), await there.receive()]
        os.utime(folder / "a.csv", ns=(1, 1))
        second = [await here.receive(), await there.receive()]
    assert first[0].id == first[1].id
    assert second[0].id == second[1].id != first[0].id


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


async def test_a_folder_that_is_not_there_is_waited_for(folder: Path, watch: Watch) -> None:
    clock = QuickClock()
    async with watch(clock=clock, path="in/later") as events:
        await clock.is_waited_for.wait()
        (folder / "later").mkdir()
        clock.is_back.set()
        await watched_again()
        (folder / "later" / "a.csv").write_text("1")
        assert (await events.receive()).payload["path"] == "in/later/a.csv"


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
