"""The server within another program: who is answered, and what becomes of it when it is cut down."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten_server.embedding import Embedded

pytestmark = pytest.mark.anyio


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Embedded]:
    settings = FlowSettings(database=tmp_path / "flow.sqlite3")
    async with FlowService(settings) as service:

        async def opened() -> FlowService:
            return service

        server = Embedded(settings, opened)
        yield server
        await server.aclose()


def _web(server: Embedded, client: Any = ("127.0.0.1", 5000)) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(server, client=client), base_url="http://127.0.0.1")


async def test_a_server_whose_life_was_cut_down_lives_again_with_the_next_request(
    embedded: Embedded, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(20):
        async with _web(embedded) as web:
            assert (await web.get("/api/flows")).status_code == 200
            life = embedded._life
            assert life is not None
            life._task.cancel()
            await anyio.wait_all_tasks_blocked()
            assert life.is_over
            assert "The server within this program ended" in caplog.text
            assert (await web.get("/api/flows")).status_code == 200


async def test_a_server_that_is_started_again_leaves_nobody_counting(embedded: Embedded) -> None:
    counting = set()
    with anyio.fail_after(20):
        for _ in range(3):
            async with _web(embedded) as web:
                assert (await web.get("/metrics")).status_code == 200
            service = await embedded._service()
            counting.add(len(service._feed._listeners))
            await embedded.aclose()
    assert len(counting) == 1


@pytest.mark.parametrize(("client", "status"), [(("127.0.0.1", 5000), 200), (("192.0.2.7", 5000), 403), (None, 403)])
async def test_without_authentication_only_a_caller_known_to_be_here_is_answered(
    embedded: Embedded, client: Any, status: int
) -> None:
    with anyio.fail_after(20):
        async with _web(embedded, client) as web:
            assert (await web.get("/api/flows")).status_code == status
            assert (await web.get("/healthz")).status_code == 200
