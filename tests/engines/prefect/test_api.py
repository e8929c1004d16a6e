"""What is told of a Prefect API: that it answers, asks for credentials, is busy, or is not there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.prefect.api import PrefectApi, PrefectError
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.views import EngineView

from ..prefect_servers import PrefectServer, Tap, free_port
from .conftest import Shown
from .test_mirror import Worker, flow, work

pytestmark = pytest.mark.anyio


async def _view(settings: FlowSettings) -> EngineView:
    async with FlowService(settings) as flows:
        return next(engine for engine in (await flows.agents()).engines if engine.name == "prefect")


async def test_the_engine_tells_which_api_answers(api: PrefectServer, settings: FlowSettings) -> None:
    view = await _view(settings)
    assert view.available
    assert view.version is not None
    assert view.note == f"the API at {api.url} answers (Prefect {view.version})"


async def test_the_engine_tells_that_no_api_is_configured(settings: FlowSettings) -> None:
    view = await _view(settings)
    assert not view.available
    assert view.note is not None
    assert view.note.startswith("No Prefect API is configured. Set PREFECT_API_URL")


async def test_the_engine_tells_that_the_api_cannot_be_reached(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    view = await _view(settings)
    assert not view.available
    assert view.note is not None
    assert view.note.startswith(f"The Prefect API at {url} cannot be reached")


async def test_an_api_that_asks_for_a_key_is_used_with_it_and_refuses_without(
    prefect_server: PrefectServer, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FlowSettings(database=tmp_path / "flow.sqlite3")
    async with Tap(prefect_server.url, bearer="pnu_right") as tap:
        monkeypatch.setenv("PREFECT_API_URL", tap.url)
        monkeypatch.setenv("PREFECT_API_KEY", "pnu_wrong")
        async with FlowService(settings, agents=[Worker()]) as flows:
            run = await flows.run_flow(workflow_def=flow(work("only")), framework="prefect")
            assert run.state == "completed"
            view = next(engine for engine in (await flows.agents()).engines if engine.name == "prefect")
            assert view.note is not None
            assert "refuses the credentials (HTTP 401)" in view.note
            assert "pnu_wrong" not in view.note
            monkeypatch.setenv("PREFECT_API_KEY", "pnu_right")
            await shown(run.run_id)


async def test_a_busy_api_and_a_page_that_is_none_are_told_apart(prefect_server: PrefectServer) -> None:
    async with Tap(prefect_server.url) as tap:
        tap.status = 503
        with pytest.raises(PrefectError, match="busy or failing") as busy:
            await PrefectApi(ApiAddress(url=tap.url)).check()
        tap.status = 404
        with pytest.raises(PrefectError, match="refused a request") as wrong:
            await PrefectApi(ApiAddress(url=tap.url)).check()
    assert (busy.value.is_lasting, wrong.value.is_lasting) == (False, True)


async def test_an_api_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes the connection, nobody reads it
        port = silent.getsockname()[1]
        with pytest.raises(PrefectError, match=r"did not answer within 0\.2 s"):
            await PrefectApi(ApiAddress(url=f"http://127.0.0.1:{port}/api")).check(0.2)
