"""Files are watched for each enabled trigger that asks for it, as it is now, by a server that drives."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.store.sql import SQL
from contexten.extensions.flow.triggers import files
from contexten.extensions.flow.triggers.model import TriggerEvent
from contexten.extensions.flow.triggers.views import trigger_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from contexten.extensions.flow.triggers.configs import FileConfig
    from contexten.extensions.flow.triggers.model import Trigger

pytestmark = pytest.mark.anyio

NOTE: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "note", "type": "note"}]}]}


class Watch:
    """In the place of `watch_files`: what is watched now, and how often that changed."""

    def __init__(self) -> None:
        self.now: dict[str, tuple[str, ...]] = {}
        self.deliver: Any = None
        self._changed = anyio.Event()

    async def __call__(
        self, trigger: Trigger, config: FileConfig, deliver: Any, allow_paths: Sequence[Path], clock: object
    ) -> None:
        assert allow_paths
        assert clock
        self.deliver = deliver
        self._set({**self.now, trigger.trigger_id: config.patterns})
        try:
            await anyio.sleep_forever()
        finally:
            if self.now.get(trigger.trigger_id) == config.patterns:
                self._set({key: value for key, value in self.now.items() if key != trigger.trigger_id})

    def _set(self, now: dict[str, tuple[str, ...]]) -> None:
        self.now = now
        self._changed.set()
        self._changed = anyio.Event()

    async def is_now(self, wanted: dict[str, tuple[str, ...]]) -> None:
        with anyio.fail_after(30):
            while self.now != wanted:
                await self._changed.wait()


@asynccontextmanager
async def _watched(
    settings: FlowSettings, folder: Path, monkeypatch: pytest.MonkeyPatch, **limits: int
) -> AsyncIterator[tuple[FlowService, Watch, Trigger]]:
    """A service whose one trigger watches the folder, by a stand-in for what looks at files."""
    watch = Watch()
    monkeypatch.setattr(files, "watch_files", watch)
    async with FlowService(settings.model_copy(update={"allow_paths": (folder,)})) as flows:
        await flows.create_flow(workflow_def=NOTE, flow_id="target")
        config = {"path": str(folder), **limits}
        await flows.triggers.create(flow_id="target", kind="file", config=config, trigger_id="files", actor=PYTHON)
        await watch.is_now({"files": ("*",)})
        row = await flows._store.row(SQL["read_trigger"], ("files",))
        assert row is not None
        yield flows, watch, trigger_of(row)


async def test_a_watch_begins_follows_its_trigger_and_ends_with_it(
    settings: FlowSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    monkeypatch.setattr(files, "watch_files", watch)
    allowed = settings.model_copy(update={"allow_paths": (tmp_path,)})
    async with FlowService(allowed) as flows:
        await flows.create_flow(workflow_def=NOTE, flow_id="target")
        config = {"path": str(tmp_path), "patterns": ["*.csv"]}
        created = await flows.triggers.create(
            flow_id="target", kind="file", config=config, trigger_id="files", actor=PYTHON
        )
        await watch.is_now({"files": ("*.csv",)})
        await flows.triggers.update("files", config={**config, "patterns": ["*.txt"]}, actor=PYTHON)
        await watch.is_now({"files": ("*.txt",)})
        await flows.triggers.update("files", enabled=False, actor=PYTHON)
        await watch.is_now({})
        await flows.triggers.update("files", enabled=True, actor=PYTHON)
        await watch.is_now({"files": ("*.txt",)})
        await flows.triggers.delete(created.trigger_id, actor=PYTHON)
        await watch.is_now({})


async def test_what_happens_to_a_file_waits_until_there_is_room_for_it(
    settings: FlowSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contexten.extensions.flow.triggers.watches.RETRY_S", 0.01)
    limits = {"max_pending": 1, "max_active": 1}
    async with _watched(settings, tmp_path, monkeypatch, **limits) as (flows, watch, trigger):
        events = [
            TriggerEvent(kind="file", type="added", id=str(number), payload={}, received_at="") for number in range(20)
        ]
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for event in events:
                    group.start_soon(watch.deliver, trigger, event)
        assert len((await flows.triggers.deliveries(limit=50)).deliveries) == 20


async def test_a_folder_that_is_not_allowed_is_refused(settings: FlowSettings, tmp_path: Path) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def=NOTE, flow_id="target")
        with pytest.raises(InvalidArguments) as refused:
            await flows.triggers.create(flow_id="target", kind="file", config={"path": str(tmp_path)}, actor=PYTHON)
        assert refused.value.issues[0].path == "/config/path"


async def test_an_event_that_can_never_be_recorded_holds_up_no_other_one(
    settings: FlowSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _watched(settings, tmp_path, monkeypatch) as (flows, watch, trigger):
        for number, payload in enumerate([{"size": float("nan")}, {"size": 1}]):
            event = TriggerEvent(kind="file", type="added", id=str(number), payload=payload, received_at="")
            await watch.deliver(trigger, event)
        assert [one.event_id for one in (await flows.triggers.deliveries()).deliveries] == ["1"]
        await flows.triggers.delete("files", actor=PYTHON)
        event = TriggerEvent(kind="file", type="added", id="late", payload={}, received_at="")
        assert await watch.deliver(trigger, event) is None


async def test_what_another_server_told_of_a_file_is_not_recorded_again(
    settings: FlowSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _watched(settings, tmp_path, monkeypatch) as (flows, watch, trigger):
        for own, since in (("a:5", "a:2"), ("a:4", "a:3"), ("a:7", "a:5"), ("a:9", "a:6"), ("b:1", "b:0")):
            last = f"{own[0]}:~"
            event = TriggerEvent(kind="file", type="added", id=own, payload={}, received_at="", same_ids=(since, last))
            await watch.deliver(trigger, event)
        recorded = [one.event_id for one in (await flows.triggers.deliveries()).deliveries]
        assert recorded == ["b:1", "a:9", "a:5"]
