"""The flow that Prefect's workers run, where Prefect has bad moments."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings

from ..prefect_servers import PrefectServer, Tap
from .test_mirror import flow

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("trouble", ["vanishes", "answers 503", "answers a page"])
async def test_a_run_goes_on_while_prefect_does_not_answer(
    prefect_server: PrefectServer,
    settings: FlowSettings,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from contexten.extensions.flow.prefect import published

    monkeypatch.setattr(published, "LOOK_S", 0.05)
    go, warned = anyio.Event(), anyio.Event()
    monkeypatch.setattr(published, "FAREWELL_S", 1.0)

    class Held:
        name = "held"
        tools = ("hold",)

        async def run(self, task: Any, context: Any) -> Any:
            await go.wait()
            return 1

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warned.set()

    logger = logging.getLogger(f"told.{trouble}")
    logger.addHandler(Told())
    async with Tap(prefect_server.url) as tap, FlowService(settings, agents=[Held()]) as flows:
        with temporary_settings({PREFECT_API_URL: tap.url}):
            run = await flows.execute_flow(workflow_def=flow({"name": "only", "required_tools": ["hold"]}))
            follower = published._Follower(settings, uuid4(), logger)
            async with anyio.create_task_group() as group:
                if trouble == "vanishes":
                    await tap.shut()
                else:
                    tap.status, tap.page = (503, b"") if trouble == "answers 503" else (200, b"<html>Upgrading</html>")
                ended: list[Any] = []

                async def wait() -> None:
                    ended.append(await follower._wait(flows, run.run_id, drives=True))

                group.start_soon(wait)
                with anyio.fail_after(30):
                    await warned.wait()
                    go.set()
    assert [view.state for view in ended] == ["completed"]
