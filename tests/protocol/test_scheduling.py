"""Scheduling over MCP: deadlines, dependencies, strategies, and why a run waits."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp.client import Client

from contexten.extensions.flow.strategies import SchedulingStrategy

pytestmark = pytest.mark.anyio


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    found: dict[str, Any] = result.structured_content
    return found


async def test_a_dry_run_compares_every_strategy_and_changes_nothing(live: Any, era: str) -> None:
    async with live.client(era) as client:
        await answer(client, "create_flow", flow_id="held", workflow_def=live.flow(live.gate_task()))
        await answer(client, "set_strategy", max_concurrent_flows=1)
        for deadline in (None, 90, 60):
            more = {} if deadline is None else {"deadline": deadline}
            await answer(client, "execute_flow", flow_id="held", **more)
        with anyio.fail_after(30):
            await live.gate.reached.wait()
        before = await live.service.events(limit=1000)
        change = await answer(client, "set_strategy", strategy="deadline_aware", dry_run=True)
        assert await live.service.events(limit=1000) == before
        alone = await answer(client, "set_strategy", dry_run=True)
        live.gate.opened.set()
    assert (change["dry_run"], change["before"]["strategy"], change["after"]["strategy"]) == (
        True,
        "fifo",
        "deadline_aware",
    )
    forecast = change["forecast"]
    assert [row["strategy"] for row in forecast["strategies"]] == list(SchedulingStrategy)
    assert (forecast["runs"], forecast["queued"], forecast["slots"]) == (3, 2, 1)
    assert forecast["recommended"] in list(SchedulingStrategy)
    assert forecast["reason"].startswith(forecast["recommended"])
    assert change["effect"].startswith("Nothing was changed.")
    assert alone["after"] == alone["before"]


async def test_a_run_tells_its_deadline_its_dependencies_and_what_holds_it(live: Any, era: str) -> None:
    async with live.client(era) as client:
        first = await answer(client, "execute_flow", workflow_def=live.flow(live.gate_task()))
        with anyio.fail_after(30):
            await live.gate.reached.wait()
        second = await answer(
            client,
            "execute_flow",
            workflow_def=live.flow(live.value_task()),
            dependencies=[first["run_id"]],
            deadline=3600,
            on_deadline="cancel",
        )
        assert second["held_by"] == "dependencies"
        status = await answer(client, "get_flow_status", run_id=second["run_id"])
        assert status["dependencies"] == [
            {"id": first["run_id"], "run_id": first["run_id"], "state": "waiting", "on_failure": "fail"}
        ]
        assert (status["deadline"]["on_deadline"], status["deadline"]["missed"]) == ("cancel", False)
        why = await answer(client, "explain_flow", run_id=second["run_id"])
        assert why["waiting_for"] == [f"run {first['run_id']} to complete (it is running)"]
        live.gate.opened.set()
        ended = await answer(client, "wait_for_flow", run_id=second["run_id"], timeout_s=20)
        assert ended["state"] == "completed"


@pytest.mark.parametrize("strategy", list(SchedulingStrategy))
async def test_every_strategy_can_be_set_and_is_shown(live: Any, strategy: str) -> None:
    async with live.client("2026-07-28") as client:
        change = await answer(client, "set_strategy", strategy=strategy.upper())
        assert change["after"]["strategy"] == strategy
        assert (await answer(client, "get_metrics"))["scheduler"]["strategy"] == strategy
        run = await answer(client, "execute_flow", workflow_def=live.flow(live.value_task()), wait_s=20)
        assert run["state"] == "completed"


async def test_a_run_that_would_depend_on_what_is_not_there_is_refused_with_its_place(live: Any, era: str) -> None:
    async with live.client(era) as client:
        arguments = {"workflow_def": live.flow(live.value_task()), "dependencies": ["run_nobody"]}
        result = await client.call_tool("execute_flow", arguments)
        error = result.structured_content["error"]
        assert (error["code"], error["issues"][0]["path"]) == ("invalid_arguments", "/dependencies/0")
        assert "list_flows" in error["next"]
