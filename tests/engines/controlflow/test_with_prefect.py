"""With a Prefect API configured and Prefect enabled, ControlFlow's own work is recorded there."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings

from ..model_server import Call, ModelRequest, ModelServer, Reply
from ..prefect_servers import PrefectServer, Tap
from .conftest import KEY_VARIABLE, Stock, end_of, flow_of, succeed

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ANSWER = {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}, "required": ["size"]}


def script(request: ModelRequest) -> Reply:
    if not request.results:
        return Call("count_items", {"item": "pear"})
    return succeed(request, {"size": "large"})


@pytest.mark.timeout(400)
async def test_its_tasks_are_prefect_flow_runs_and_an_api_that_vanishes_costs_no_run(
    prefect_server: PrefectServer, model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FlowSettings(
        database=tmp_path / "flow.sqlite3",
        retry_delay_s=0,
        max_retries=0,
        engines=("prefect",),
        model="openai/scripted",
        model_base_url=model.url,
        model_api_key_variable=KEY_VARIABLE,
    )
    task = {"name": "count", "required_tools": ["count_items"], "output_schema": ANSWER}
    model.script = script
    async with Tap(prefect_server.url) as tap, FlowService(settings, agents=[Stock()]) as flows:
        monkeypatch.setenv("PREFECT_API_URL", tap.url)

        async def run(**more: object) -> tuple[str, str, str]:
            begun = await flows.execute_flow(workflow_def=flow_of({**task, **more}), framework="controlflow")
            ended = await end_of(flows, begun.run_id)
            told = json.dumps(ended.output) if ended.error is None else f"{ended.error.kind}: {ended.error.message}"
            return begun.run_id, ended.state, told

        run_id, state, output = await run()
        assert (state, json.loads(output)) == ("completed", {"count": {"size": "large"}}), output
        await tap.shut()
        _, state, error = await run()
        assert state == "failed"
        assert error.startswith("network: The Prefect API")
        await tap.open()
        _, state, output = await run()
        assert state == "completed", output
    runs = await anyio.to_thread.run_sync(prefect_server.ask, "/flow_runs/filter", {})
    (shown,) = [one for one in runs if one["name"] == f"count of {run_id}"]
    assert shown["state_type"] == "COMPLETED"
