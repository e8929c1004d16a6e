"""What tests of Prefect share: a service whose runs a Prefect server shows."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowSettings

from ..prefect_servers import PrefectServer


@pytest.fixture(autouse=True)
def _no_prefect_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prefect's configuration of this machine does not reach the tests."""
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("DO_NOT_TRACK", "1")


@pytest.fixture
def api(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> PrefectServer:
    """The shared server, configured as this process's API."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    return prefect_server


@pytest.fixture
def settings(tmp_path: Path) -> FlowSettings:
    return FlowSettings(database=tmp_path / "flow.sqlite3", retry_delay_s=0)


Shown = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def shown(prefect_server: PrefectServer) -> Shown:
    """Wait until Prefect shows a run in a state; answers its flow run."""

    async def wait(run_id: str, state: str = "Completed", *, within_s: float = 60) -> dict[str, Any]:
        with anyio.fail_after(within_s):
            while True:
                flow_run = await anyio.to_thread.run_sync(prefect_server.flow_run, run_id)
                if flow_run is not None and flow_run["state"]["name"] == state:
                    return flow_run
                await anyio.sleep(0.1)

    return wait
