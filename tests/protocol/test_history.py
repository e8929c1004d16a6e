"""get_history: the toolset `history`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.client import Client

from contexten_server.assembly import build_server

if TYPE_CHECKING:
    from tests.protocol.conftest import Live

pytestmark = pytest.mark.anyio


async def test_the_toolset_tells_how_runs_went(live: Live) -> None:
    server = build_server(dataclasses.replace(live.app, toolsets=("default", "history")))
    with anyio.fail_after(30):
        await live.service.create_flow(workflow_def=live.flow(live.value_task()), flow_id="some")
        await live.service.run_flow(flow_id="some")
        async with Client(server) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            found = (await client.call_tool("get_history", {"since": "1h"})).structured_content
            refused: Any = await client.call_tool("get_history", {"by": "tools", "flow_id": "some"})
            unknown: Any = await client.call_tool("get_history", {"flow_id": "nobody"})
    assert listed["get_history"].annotations is not None
    assert listed["get_history"].annotations.read_only_hint
    assert found is not None
    (row,) = found["rows"]
    assert (row["key"], row["runs"], row["success_rate"]) == ("some", 1, 1.0)
    assert refused.structured_content["error"]["issues"][0]["path"] == "/by"
    assert unknown.structured_content["error"]["code"] == "flow_not_found"


async def test_without_the_toolset_there_is_no_such_tool(live: Live) -> None:
    async with Client(live.server) as client:
        assert "get_history" not in {tool.name for tool in (await client.list_tools()).tools}
