"""What a worker tells while it makes an attempt, without Prefect's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import anyio
import pytest

from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.agents.secrets import SecretVault
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.prefect import lifeline
from contexten.extensions.flow.prefect.api import PrefectApi, load
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.prefect.connection import Connection
from contexten.extensions.flow.prefect.following import Watched
from contexten.extensions.flow.prefect.lifeline import Lifeline
from contexten.extensions.flow.prefect.tracking import Tracking

from .conftest import Told, about

pytestmark = pytest.mark.anyio


class Api:
    """In the place of a connection: keeps lines, and can hang."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.sent: list[Any] = []
        self.hangs = False
        self.is_asked = anyio.Event()

    async def create_logs(self, lines: list[Any]) -> None:
        self.sent += lines

    async def update_flow_run_labels(self, flow_run_id: Any, labels: Any) -> None:
        pass

    async def once(self, call: Callable[[Any], Awaitable[Any]]) -> Any:
        self.is_asked.set()
        if self.hangs:
            await anyio.sleep_forever()
        return await call(self)

    ask = once


def _lifeline(api: Api, settings: FlowSettings) -> Lifeline:
    return Lifeline(cast("Connection", api), uuid4(), SecretVault(settings), lease_ttl_s=0.03)


async def test_a_worker_that_is_cancelled_again_while_it_tells_stops_beating(settings: FlowSettings) -> None:
    await load()  # which takes seconds
    api = Api()
    api.hangs = True
    line = _lifeline(api, settings)

    async def attempt() -> None:
        async with line:
            await anyio.sleep_forever()

    making = asyncio.create_task(attempt())
    with anyio.fail_after(5):
        await api.is_asked.wait()  # it beats, and gets no answer
        making.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        making.cancel()
        await asyncio.wait([making])
    assert line._beating is not None
    with anyio.fail_after(5):
        await asyncio.wait([line._beating])


async def test_what_models_used_is_told_by_the_verdict_however_many_lines_there_were(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "MAX_LINES", 3)
    api = Api()
    used = {"model": "m", "input_tokens": 3, "output_tokens": 4}
    async with _lifeline(api, settings) as line:
        for number in range(5):
            line.log("info", f"line {number}")
        line.record("task.usage", dict(used))
    assert [log.message for log in api.sent] == [
        "line 0",
        "line 1",
        "the log ends here: 3 lines are kept of an attempt",
    ]
    assert line.usage == [used]


def test_entries_that_the_journal_does_not_take_are_passed_over(settings: FlowSettings) -> None:
    told = Told()

    def record(event: str, data: dict[str, Any]) -> None:
        if event != "task.tool_called":
            raise ValueError(event)
        told.entries.append((event, data))

    api = Api()
    watched = Watched(api.clock)
    context = about(record_sink=record)
    tracking = Tracking(cast("Connection", api), "pool", uuid4(), watched, context, lease_ttl_s=1)
    for line in ("3", "[", "[1]", '["run.completed", {}]', '["task.tool_called", 1]', '[["x"], {}]', "null"):
        tracking._record_line(line)
    tracking._record_line('["task.tool_called", {"tool": "t"}]')
    assert told.entries == [("task.tool_called", {"tool": "t"})]


async def test_a_connection_that_is_given_up_while_it_opens_leaves_nothing_behind() -> None:
    is_opening = anyio.Event()

    class Slow(PrefectApi):
        @asynccontextmanager
        async def client(self, *, max_retries: int = 0) -> AsyncIterator[Any]:
            is_opening.set()
            await anyio.sleep_forever()
            yield None

    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: problems.append(about))
    connection = Connection(Slow(ApiAddress(url="http://127.0.0.1:9/api")), SystemClock())
    opening = asyncio.create_task(connection.__aenter__())
    await is_opening.wait()
    opening.cancel()
    with anyio.fail_after(5):
        await asyncio.wait([opening])
    assert opening.cancelled()
    assert connection._holder is not None
    assert connection._holder.done()
    assert problems == []
