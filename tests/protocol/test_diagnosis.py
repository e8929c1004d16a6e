"""An agent asks why: the calls that the reference names exist, and their answers name the cause."""

from __future__ import annotations

import json
import re
from typing import Any

import anyio
import pytest
import typer

from contexten.extensions.flow.reference import reference_text
from contexten_server.cli.app import app as command_line

from .conftest import ROOT

pytestmark = pytest.mark.anyio

_CALL = re.compile(r"\b([a-z]+(?:_[a-z]+)+)\(([^()]*)\)")
_COMMAND = re.compile(r"contexten-flow ([a-z]+)")

TEXTS = {
    "best-practices": reference_text("best-practices"),
    "troubleshooting": reference_text("troubleshooting"),
    "docs": (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"),
}


async def answer(client: Any, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    found: dict[str, Any] = result.structured_content
    return found


@pytest.mark.parametrize("text", TEXTS)
async def test_every_call_that_is_named_can_be_made(live: Any, text: str) -> None:
    async with live.client("2026-07-28") as client:
        known = {tool.name: set(tool.input_schema["properties"]) for tool in (await client.list_tools()).tools}
    calls = _CALL.findall(TEXTS[text])
    assert len(calls) > 5
    for name, arguments in calls:
        assert name in known, name
        given = {part.partition("=")[0].strip() for part in arguments.split(",") if part.strip()}
        assert given <= known[name], (name, given - known[name])


@pytest.mark.parametrize("text", ["troubleshooting", "docs"])
def test_every_command_that_is_named_exists(text: str) -> None:
    commands = set(_COMMAND.findall(TEXTS[text]))
    assert {"doctor", "verify"} <= commands
    group = typer.main.get_command(command_line)
    assert isinstance(group, typer.core.TyperGroup)
    assert commands <= set(group.commands)


async def test_why_nothing_moves_is_told_by_explain_flow(live: Any, era: str) -> None:
    await live.service.set_strategy(max_concurrent_flows=1)
    async with live.client(era) as client:
        holder = await answer(client, "execute_flow", workflow_def=live.flow(live.gate_task()))
        with anyio.fail_after(30):
            await live.gate.reached.wait()
        behind = await answer(client, "execute_flow", workflow_def=live.flow(live.value_task()))
        why = await answer(client, "explain_flow", run_id=behind["run_id"])
        assert why["waiting_for"] == [f"a free slot (max_concurrent_flows is 1; held by {holder['run_id']})"]
        forecast = await answer(client, "set_strategy", max_concurrent_flows=2, dry_run=True)
        assert forecast["dry_run"] is True
        scheduler = (await answer(client, "get_metrics"))["scheduler"]
        assert (scheduler["max_concurrent_flows"], scheduler["running"], scheduler["queued"]) == (1, 1, 1)
        live.gate.opened.set()
        assert (await answer(client, "wait_for_flow", run_id=behind["run_id"]))["state"] == "completed"


async def test_what_fails_is_told_by_get_metrics(live: Any, era: str) -> None:
    broken = {"name": "parse", "required_tools": ["json_parser"], "parameters": {"text": "{"}}
    async with live.client(era) as client:
        run = await answer(client, "execute_flow", workflow_def=live.flow(broken), wait_s=20)
        metrics = await answer(client, "get_metrics")
        with anyio.fail_after(30):
            resource = json.loads((await client.read_resource("flow://metrics")).contents[0].text)
        why = await answer(client, "explain_flow", run_id=run["run_id"])
    failures = metrics["tasks"]["failures"]
    assert failures["by_tool"] == {"json_parser": {"invalid": 1}}
    assert failures["by_agent"] == {"builtin": {"invalid": 1}}
    assert metrics["flows"]["failed_by_kind"] == {"invalid": 1}
    assert resource["tasks"]["failures"] == failures
    assert (why["failure"]["root_task"], why["failure"]["kind"]) == ("parse", "invalid")
