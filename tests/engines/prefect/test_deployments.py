"""Flows as Prefect deployments, and the runs that are started there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.prefect.api import PrefectApi, PrefectError
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.prefect.deployments import Published, parameter_schema, publish_flow
from contexten.extensions.flow.views import RunView

from ..prefect_servers import PrefectServer
from .test_mirror import flow

pytestmark = pytest.mark.anyio

DEFINITION = {
    "name": "Sums",
    "description": "Adds numbers up.",
    "tags": ["maths"],
    "inputs": {
        "type": "object",
        "properties": {"numbers": {"type": "array", "items": {"$ref": "#/$defs/number"}}},
        "required": ["numbers"],
        "$defs": {"number": {"type": "number"}},
    },
    "stages": [
        {
            "name": "only",
            "tasks": [
                {
                    "name": "add",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ inputs.numbers }}", "query": "sum(@)"},
                }
            ],
        }
    ],
}


async def _publish(api: PrefectServer, settings: FlowSettings, pool: str) -> Published:
    async with FlowService(settings) as flows:
        await flows.create_flow(workflow_def=DEFINITION, flow_id="sums")
        saved = await flows.get_flow("sums")
    prefect = PrefectApi(ApiAddress(url=api.url))
    return await publish_flow(prefect, SystemClock(), saved, pool=pool, database=settings.database)


def test_the_inputs_schema_becomes_one_parameter_and_its_references_hold() -> None:
    schema = parameter_schema(DEFINITION["inputs"])
    inputs = schema["properties"]["inputs"]
    assert schema["required"] == ["inputs"]
    assert inputs["properties"]["numbers"]["items"] == {"$ref": "#/properties/inputs/$defs/number"}
    assert parameter_schema(None)["required"] == []


async def test_a_pool_that_is_not_there_is_named_with_how_to_make_it(
    api: PrefectServer, settings: FlowSettings
) -> None:
    with pytest.raises(PrefectError, match="There is no work pool 'nowhere'"):
        await _publish(api, settings, "nowhere")


async def test_a_run_that_is_started_in_prefect_enters_the_journal_and_its_end_is_shown(
    api: PrefectServer, settings: FlowSettings
) -> None:
    api.ask("/work_pools/", {"name": "published", "type": "process"})
    published = await _publish(api, settings, "published")
    assert published.deployment == "Sums/sums"
    deployment = await anyio.to_thread.run_sync(api.ask, "/deployments/name/Sums/sums")
    assert deployment["version"] == "1"
    assert deployment["tags"] == ["maths"]
    assert deployment["description"] == "Adds numbers up."
    assert deployment["work_pool_name"] == "published"
    assert published.url.endswith(deployment["id"])
    start = f"/deployments/{deployment['id']}/create_flow_run"
    with pytest.raises(httpx.HTTPStatusError) as refused:
        api.ask(start, {"parameters": {"inputs": {"numbers": ["one"]}}})
    assert refused.value.response.status_code == 409
    good = api.ask(start, {"parameters": {"inputs": {"numbers": [1, 2, 3.5]}}})
    with anyio.fail_after(90):
        await anyio.to_thread.run_sync(_work_once, api, "published")
    flow_run = api.ask(f"/flow_runs/{good['id']}")
    async with FlowService(settings, drive=False) as flows:
        (run,) = (await flows.list_runs(flow_id="sums")).runs
        output = await flows.run_output(run.run_id)
        first = (await flows.events(run.run_id))[0]
    assert (run.state, run.version, output) == ("completed", 1, '{"add":6.5}')
    assert first.actor == f"prefect/prefect/{good['id']}"
    assert flow_run["state"]["name"] == "Completed", flow_run["state"]
    artifacts = api.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [good["id"]]}}})
    assert run.run_id in artifacts[0]["data"]
    assert any(run.run_id in log["message"] for log in api.logs(good["id"]))


async def _first_run(flows: FlowService, flow_id: str) -> RunView:
    while True:
        for run in (await flows.list_runs(flow_id=flow_id)).runs:
            return run
        await anyio.sleep(0.1)


def _work_once(server: PrefectServer, pool: str) -> None:
    """Prefect's own worker takes what waits, and ends."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--run-once"]
    done = subprocess.run(command, env=_environment(server), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr


def _environment(server: PrefectServer) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    home = server.home / "worker"
    home.mkdir(exist_ok=True)
    return environment | {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"}


async def test_a_server_that_lives_drives_the_run_and_a_cancellation_in_prefect_reaches_it(
    api: PrefectServer, settings: FlowSettings
) -> None:
    async with FlowService(settings) as flows:
        waiting = flow({"name": "long", "type": "wait", "parameters": {"seconds": 600}})
        await flows.create_flow(workflow_def=waiting, flow_id="held")
        api.ask("/work_pools/", {"name": "cancelled", "type": "process"})
        prefect = PrefectApi(ApiAddress(url=api.url))
        saved = await flows.get_flow("held")
        await publish_flow(prefect, SystemClock(), saved, pool="cancelled", database=settings.database)
        deployment = api.ask("/deployments/name/A flow/held")
        flow_run = api.ask(f"/deployments/{deployment['id']}/create_flow_run", {})
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", flow_run["id"]]
        environment = _environment(api) | {"CONTEXTEN_FLOW_DATABASE": str(settings.database)}
        process = await anyio.open_process(command, env=environment, stdout=None, stderr=None)
        try:
            with anyio.fail_after(90):
                run = await _first_run(flows, "held")
                api.ask(f"/flow_runs/{flow_run['id']}/set_state", {"state": {"type": "CANCELLING"}})
                await flows.wait(run.run_id)
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        view = await flows.get_run(run.run_id)
    assert (view.state, view.reason) == ("cancelled", "cancelled in Prefect")
    assert api.ask(f"/flow_runs/{flow_run['id']}")["state"]["name"] == "Cancelled"


def test_the_command_publishes_and_tells_where_no_api_is(api: PrefectServer, tmp_path: Path) -> None:
    database = str(tmp_path / "flow.sqlite3")

    async def save() -> None:
        async with FlowService(FlowSettings(database=Path(database))) as flows:
            await flows.create_flow(workflow_def=DEFINITION, flow_id="by-command")

    anyio.run(save)
    api.ask("/work_pools/", {"name": "commanded", "type": "process"})
    command = [
        sys.executable,
        "-m",
        "contexten_server",
        "publish",
        "by-command",
        "--pool",
        "commanded",
        "--db",
        database,
    ]
    environment = _environment(api)
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)
    assert (published["deployment"], published["version"]) == ("Sums/by-command", 1)
    del environment["PREFECT_API_URL"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "No Prefect API is configured" in refused.stderr
