"""MCP servers as agents: their tools in flows, over standard input and output and over HTTP, in both eras."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow.errors import InvalidDefinition

from .conftest import HttpServer, example, listening_socket, served
from .example_server import PIXEL

if TYPE_CHECKING:
    from .conftest import Flows, Open

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["stdio", "http"])
async def flows(
    request: pytest.FixtureRequest, era: str, http_server: HttpServer, open_flows: Open
) -> AsyncIterator[Flows]:
    """A service whose server `ex` is the example server."""
    if request.param == "http":
        entry: dict[str, Any] = {"url": http_server.url}
    else:
        entry = example(*(["--legacy"] if era == "legacy" else []))
    async with open_flows({"ex": entry}) as opened:
        yield opened


async def test_a_task_calls_a_tool_and_gets_its_structured_output(flows: Flows, era: str) -> None:
    assert await flows.output("mcp:ex/add", a=2, b=40) == {"total": 42}
    assert flows.state("ex").startswith("connected (example 1.2, protocol 202")
    assert ("2026-07-28" in flows.state("ex")) == (era != "legacy")


async def test_text_is_kept_and_parsed_where_it_is_an_object_or_a_list(flows: Flows) -> None:
    assert await flows.output("mcp:ex/say", text="12") == "12"
    assert await flows.output("mcp:ex/say", text=' {"x": [1]}') == {"x": [1]}
    assert await flows.output("mcp:ex/say", text="[1] and more") == "[1] and more"
    assert await flows.output("mcp:ex/say", text='{"x": NaN}') == '{"x": NaN}'


async def test_several_parts_are_a_list_and_pictures_are_described(flows: Flows) -> None:
    assert await flows.output("mcp:ex/show") == [
        {"type": "text", "text": "see:"},
        {"type": "image", "mime_type": "image/png", "base64": base64.b64encode(PIXEL).decode()},
    ]


async def test_a_tool_that_fails_fails_the_attempt_and_is_tried_again(flows: Flows) -> None:
    view = await flows.run("mcp:ex/fail", {"retry": {"max_attempts": 2}}, why="no paper")
    assert view.error is not None
    assert (view.error.kind, view.error.attempt) == ("agent_failure", 2)
    assert "no paper" in view.error.message
    assert await flows.output("mcp:ex/history") == {"result": ["fail", "fail"]}


async def test_progress_is_told_in_the_journal(flows: Flows) -> None:
    run_id = await flows.start("mcp:ex/count", to=3)
    assert (await flows.end(run_id)).state == "completed"
    assert sorted(await flows.logs(run_id)) == [f"progress {n}/3: at {n}" for n in (1, 2, 3)]


async def test_a_tool_that_the_server_adds_later_can_be_used(flows: Flows) -> None:
    with pytest.raises(InvalidDefinition):
        await flows.start("mcp:ex/extra")
    assert await flows.output("mcp:ex/grow", name="extra") == {"result": "extra"}
    with anyio.fail_after(30):
        while "mcp:ex/extra" not in flows.registry.tool_specs():
            await anyio.lowlevel.checkpoint()
    assert await flows.output("mcp:ex/extra") == "I am extra"


async def test_outputs_flow_from_server_tools_into_others(flows: Flows) -> None:
    flow = {
        "stages": [
            {
                "name": "main",
                "tasks": [
                    {"name": "sum", "required_tools": ["mcp:ex/add"], "parameters": {"a": "{{ inputs.n }}"}},
                    {
                        "name": "each",
                        "for_each": "{{ [1, 2, 3] }}",
                        "required_tools": ["mcp:ex/add"],
                        "parameters": {"a": "{{ item }}", "b": "{{ tasks.sum.output.total }}"},
                    },
                    {
                        "name": "picked",
                        "required_tools": ["data_processor"],
                        "parameters": {"data": "{{ tasks.each.output }}", "query": "[].total"},
                    },
                ],
            }
        ]
    }
    run = await flows.service.execute_flow(workflow_def=flow, inputs={"n": 9})
    view = await flows.end(run.run_id)
    assert isinstance(view.output, dict), view.error
    assert view.output["picked"] == [11, 12, 13]


async def test_a_call_can_become_a_task_of_the_server(flows: Flows, era: str) -> None:
    run_id = await flows.start("mcp:ex/job", polls=2)
    view = await flows.end(run_id)
    assert isinstance(view.output, dict), view.error
    if era == "legacy":  # there it cannot
        assert view.output["t"] == "at once"
    else:
        assert view.output["t"] == {"did": "job-0"}
        assert "working: 1 to go" in await flows.logs(run_id)


async def test_tools_are_listed_with_their_schemas(flows: Flows) -> None:
    await flows.output("mcp:ex/add", a=1)
    tools = {tool["name"]: tool for tool in flows.registry.snapshot()["tools"]}
    assert tools["mcp:ex/add"]["description"] == "Adds two numbers."
    assert tools["mcp:ex/add"]["parameters"]["properties"]["a"]["type"] == "integer"
    assert tools["mcp:ex/add"]["agents"] == ["ex"]


async def test_cancelling_a_run_cancels_the_call_on_the_server(http_server: HttpServer, open_flows: Open) -> None:
    async with open_flows({"ex": {"url": http_server.url}}) as flows:
        run_id = await flows.start("mcp:ex/hold")
        with anyio.fail_after(30):
            await http_server.events.began.wait()
            await flows.service.control(run_id, "cancel")
            await http_server.events.cancelled.wait()
        assert (await flows.end(run_id)).state == "cancelled"
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}  # the session is as good as before


async def test_a_timeout_cancels_the_call_on_the_server(open_flows: Open, era: str) -> None:
    flags = ["--legacy"] if era == "legacy" else []
    async with open_flows({"ex": example(*flags, timeout_s=0.3), "own": example(*flags)}) as flows:
        await flows.output("mcp:ex/add", a=1)
        kind, message = await flows.failure("mcp:ex/hold")
        assert (kind, message) == ("timeout", "The MCP server ex, asked for hold: it did not answer within 0.3 s.")
        assert await flows.output("mcp:ex/history") == {"result": ["add", "cancelled hold"]}
        await flows.output("mcp:own/add", a=1)
        view = await flows.run("mcp:own/hold", {"timeout_s": 0.3, "retry": {"max_attempts": 1}})
        assert view.error is not None
        assert view.error.kind == "timeout"
        assert await flows.output("mcp:own/history") == {"result": ["add", "cancelled hold"]}


async def test_cancelling_a_run_cancels_the_task_that_its_call_became(open_flows: Open) -> None:
    with listening_socket() as (listening, url):
        server = HttpServer(url, is_legacy=False)
        await server.start()
        async with served(server, listening), open_flows({"ex": {"url": url}}) as flows:
            run_id = await flows.start("mcp:ex/job", polls=1_000_000)
            with anyio.fail_after(30):
                await server.events.began.wait()
                await flows.service.control(run_id, "cancel")
                await server.events.cancelled.wait()
            assert (await flows.end(run_id)).state == "cancelled"
            assert server.events.history == ["cancelled job-0"]
            assert await flows.failure("mcp:ex/job", polls=0, ends="failed") == (
                "agent_failure",
                "The MCP server ex, asked for job: the job broke.",
            )
            kind, message = await flows.failure("mcp:ex/job", polls=0, ends="input_required")
            assert kind == "invalid"
            assert "asks the user a question" in message
            assert server.events.history[1:] == ["cancelled job-2"]
        await server.stop()


async def test_calls_of_one_server_share_a_session_and_run_at_once(http_server: HttpServer, open_flows: Open) -> None:
    async with open_flows({"ex": {"url": http_server.url, "capacity": 3}}) as flows:
        held = [await flows.start("mcp:ex/hold") for _ in range(3)]
        with anyio.fail_after(30):
            await http_server.events.began.wait()
            http_server.events.may_end.set()
            for run_id in held:
                assert (await flows.end(run_id)).output == {"t": {"result": "held"}}
    opened = [
        method for method, headers in http_server.requests if "mcp-session-id" not in headers and method == "POST"
    ]
    assert len(opened) <= 2 if http_server.is_legacy else True  # server/discover and initialize, once
