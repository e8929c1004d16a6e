"""What a server does where Prefect's API answers what cannot be read, or its own database has a bad moment meanwhile;
without Prefect's server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import anyio
import httpx
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import StoreBusy, StoreError
from contexten.extensions.flow.prefect.api import PrefectApi, PrefectError
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.prefect.connection import Connection
from contexten.extensions.flow.prefect.mirror import Mirror

from ..prefect_servers import Tap

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:9/api"


class Hurried(SystemClock):
    """Nobody sleeps."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Store:
    """In the place of a store: reads nothing; each write, or read of many rows, meets the next of these."""

    def __init__(self, *problems: Exception | None) -> None:
        self.problems = list(problems)

    async def row(self, sql: str, values: Any = ()) -> None:
        return None

    async def write(self, change: Any) -> None:
        problem = self.problems.pop(0)
        if problem is not None:
            raise problem

    async def rows(self, sql: str, values: Any = ()) -> list[Any]:
        await self.write(None)
        return []


def _mirror(store: Store, control: Callable[..., Awaitable[Any]] | None = None) -> Mirror:
    unused: Any = None
    return Mirror(
        store=cast("Any", store),
        plans=unused,
        clock=Hurried(),
        vault=unused,
        watchers=unused,
        access=unused,
        server_id=lambda: "server",
        control=control or unused,
    )


async def test_whatever_is_answered_a_run_that_is_cancelled_in_prefect_is_found_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Any] = [
        httpx.Response(200, text="<html>Upgrading</html>"),
        httpx.Response(200, json=[{"name": "of another version"}]),
        httpx.Response(200, json={"detail": "no list"}),
        RuntimeError("Cannot send a request, as the client has been closed."),
        httpx.Response(200, json=[{"id": "shown"}]),
    ]
    cancelled: list[str] = []
    is_obeyed = anyio.Event()

    async def once(call: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def control(run_id: str, action: str, **_: Any) -> None:
        cancelled.append(f"{action} {run_id}")
        is_obeyed.set()
        await anyio.sleep_forever()

    mirror = _mirror(Store(), control)
    mirror._connection = cast("Any", SimpleNamespace(once=once))
    mirror._flow_runs["run"] = cast("Any", SimpleNamespace(flow_run_id="shown"))
    watching = asyncio.create_task(mirror._watch_for_cancellations())
    with anyio.fail_after(5):
        obeyed = asyncio.create_task(is_obeyed.wait())
        await asyncio.wait([watching, obeyed], return_when=asyncio.FIRST_COMPLETED)
    assert not watching.done()
    assert cancelled == ["cancel run"]
    assert caplog.text.count("could not be asked for cancellations") == 1
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_database_that_is_busy_while_a_run_is_given_up_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(*_: Any, **__: Any) -> None:
        raise PrefectError("Prefect has no such flow run any more.", status=404, is_lasting=True)

    store = Store(StoreBusy("Another process is writing."), None)
    mirror = _mirror(store)
    monkeypatch.setattr(mirror, "_tell_all", tell)
    with anyio.fail_after(5):
        await mirror._tell("run", "server")
    assert store.problems == []


async def test_a_mirror_ends_where_the_database_fails_in_its_farewell() -> None:
    store = Store(StoreError("The disk failed."))
    with anyio.fail_after(5):
        await _mirror(store).aclose(1.0)
    assert store.problems == []


@pytest.mark.parametrize("page", [b"<html>Upgrading</html>", "<html>gewöhnlich".encode("latin-1"), b""])
async def test_a_page_in_the_place_of_the_api_is_told_of(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, page: bytes
) -> None:
    async with Tap(NOWHERE) as tap, FlowService(settings) as flows:
        tap.status, tap.page = 200, page
        monkeypatch.setenv("PREFECT_API_URL", tap.url)
        (view,) = [engine for engine in (await flows.agents()).engines if engine.name == "prefect"]
    assert not view.available
    assert view.note is not None
    assert view.note.startswith(f"The Prefect API at {tap.url} answers with something that is no JSON.")


async def test_a_request_that_is_answered_with_a_page_is_made_again() -> None:
    told: list[PrefectError] = []
    async with Tap(NOWHERE) as tap:
        tap.status, tap.page = 200, b"<html>Upgrading</html>"

        def note(error: PrefectError) -> None:
            told.append(error)
            tap.page = b"7"

        async def read(client: Any) -> Any:
            return (await client.request("GET", "/health")).json()

        with anyio.fail_after(30):
            async with Connection(PrefectApi(ApiAddress(url=tap.url)), Hurried()) as connection:
                assert await connection.ask(read, on_trouble=note) == 7
    assert [(error.is_lasting, tap.refused) for error in told] == [(False, 2)]
