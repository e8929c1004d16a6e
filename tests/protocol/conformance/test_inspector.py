"""The MCP Inspector's command line, a client that others wrote, lists and calls our tools over stdio and HTTP."""

from __future__ import annotations

import json

import pytest

from .conftest import Inspector

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TOOLS = {"create_flow", "execute_flow", "get_flow_status", "list_flows", "wait_for_flow"}
FLOW = {"stages": [{"name": "say", "tasks": [{"name": "greet", "parameters": {"text": "hello"}}]}]}


@pytest.fixture(params=["stdio", "http"])
def inspector(request: pytest.FixtureRequest) -> Inspector:
    """The Inspector over each transport."""
    inspector = request.getfixturevalue(f"inspector_over_{request.param}")
    assert isinstance(inspector, Inspector)
    return inspector


async def test_the_inspector_lists_the_tools_with_schemas(inspector: Inspector) -> None:
    listed = await inspector("tools/list")

    tools = {tool["name"]: tool for tool in listed["tools"]}
    assert set(tools) >= TOOLS
    assert all(tool["inputSchema"]["type"] == "object" for tool in tools.values())


async def test_the_inspector_creates_executes_and_lists_a_flow(inspector: Inspector) -> None:
    created = await inspector.call("create_flow", name="greeting", flow_id="greeting", workflow_def=FLOW)
    assert created["flow_id"] == "greeting"

    submitted = await inspector.call("execute_flow", flow_id="greeting")
    finished = await inspector.call("wait_for_flow", run_id=submitted["run_id"])
    assert finished["run_id"] == submitted["run_id"]
    assert finished["state"] == "completed"

    assert "greeting" in json.dumps(await inspector.call("list_flows"))


async def test_the_inspector_reads_the_resources(inspector: Inspector) -> None:
    listed = await inspector("resources/list")

    uris = {resource["uri"] for resource in listed["resources"]}
    assert "flow://metrics" in uris
    read = await inspector("resources/read", "--uri", "flow://metrics")
    assert [contents["uri"] for contents in read["contents"]] == ["flow://metrics"]
