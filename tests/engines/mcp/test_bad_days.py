"""MCP servers that die, lie, flood, fall silent or refuse: each is a clear error of a kind, and the next call works."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from contexten.extensions.flow.agents.mcp.stdio import stdio_transport
from contexten.extensions.flow.agents.mcp.target import StdioTarget

from .conftest import bad, example

if TYPE_CHECKING:
    from .conftest import HttpServer, Open

pytestmark = pytest.mark.anyio
TOO_LARGE = "The MCP server ex, asked for add: its answer is no message, or larger than is taken."


async def test_a_server_that_dies_is_a_network_failure_and_is_started_again(open_flows: Open) -> None:
    async with open_flows({"ex": example()}) as flows:
        assert await flows.failure("mcp:ex/die") == (
            "network",
            "The MCP server ex, asked for die: it ended with exit code 3: out of luck.",
        )
        assert flows.state("ex") == "failed: it ended with exit code 3: out of luck"
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}
        assert flows.state("ex").startswith("connected")


async def test_schemas_that_are_none_are_not_applied(open_flows: Open, caplog: pytest.LogCaptureFixture) -> None:
    async with open_flows({"bad": bad("bad schemas")}) as flows:
        kind, message = await flows.failure("mcp:bad/call", a="anything")
        assert (kind, "announces structured output and sent none" in message) == ("invalid", True)
        assert await flows.output("mcp:bad/far", a=1) == "fine"
        tools = {tool["name"]: tool["parameters"] for tool in flows.registry.snapshot()["tools"]}
        assert tools["mcp:bad/call"] is None
        assert tools["mcp:bad/far"] is None
    assert "has a schema for 'call' that is not applied" in caplog.text


async def test_output_that_does_not_fit_the_servers_own_schema_is_invalid(open_flows: Open) -> None:
    async with open_flows({"bad": bad("other output"), "none": bad("no output")}) as flows:
        kind, message = await flows.failure("mcp:bad/call")
        assert kind == "invalid"
        assert message.endswith("its output does not fit its own schema at /n: 'many' is not of type 'integer'.")
        kind, _ = await flows.failure("mcp:none/call")
        assert kind == "invalid"


async def test_what_the_protocol_does_not_allow_is_invalid(open_flows: Open) -> None:
    async with open_flows({"no": bad("no result"), "ex": example()}) as flows:
        kind, message = await flows.failure("mcp:no/call")
        assert (kind, "it answered what the protocol does not allow" in message) == ("invalid", True)
        kind, message = await flows.failure("mcp:ex/ask")
        assert (kind, "asks the user a question" in message) == ("invalid", True)


async def test_a_flood_is_cut_off_and_the_server_ended(open_flows: Open) -> None:
    async with open_flows({"bad": bad("flood")}, max_output_bytes=1 << 20) as flows:
        kind, message = await flows.failure("mcp:bad/call")
        assert kind == "network"
        assert "it sent a message of more than 4,194,304 bytes" in message


async def test_a_flood_of_errors_blocks_nobody(open_flows: Open) -> None:
    async with open_flows({"bad": bad("flood errors")}) as flows:
        assert await flows.output("mcp:bad/call") == "fine"


async def test_a_result_larger_than_an_output_may_be_is_invalid(open_flows: Open) -> None:
    async with open_flows({"bad": bad("fine")}, max_output_bytes=10_000) as flows:
        assert await flows.output("mcp:bad/call", size=9000) == "y" * 9000
        kind, message = await flows.failure("mcp:bad/call", size=20_000)
        assert kind == "invalid"
        assert "cannot be kept" in message


async def test_a_server_that_never_answers_a_call_is_a_timeout(open_flows: Open) -> None:
    async with open_flows({"bad": bad("deaf", timeout_s=0.4)}) as flows:
        await flows.registry.ready(["mcp:bad/call"])
        assert await flows.failure("mcp:bad/call") == (
            "timeout",
            "The MCP server bad, asked for call: it did not answer within 0.4 s.",
        )


async def test_a_server_that_hangs_is_ended_and_opened_anew(open_flows: Open) -> None:
    async with open_flows({"bad": bad("hung", timeout_s=1)}) as flows:
        first = int(await flows.output("mcp:bad/call", wanted="your process"))
        assert (await flows.failure("mcp:bad/call"))[0] == "timeout"
        second = int(await flows.output("mcp:bad/call", wanted="your process"))
        assert second != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        run = await flows.run("mcp:bad/call", {"timeout_s": 0.2, "retry": {"max_attempts": 1}})
        assert run.error is not None
        while flows.state("bad").startswith("connected"):  # until the probe is over
            await anyio.lowlevel.checkpoint()
        assert "it fell silent" in flows.state("bad")


async def test_tools_that_cannot_be_read_are_left_out_and_named(
    open_flows: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_flows({"bad": bad("bad tools")}) as flows:
        assert await flows.output("mcp:bad/call") == "fine"
        assert flows.registry.find("bad").tools == ("mcp:bad/call",)
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert [name for line in told for name in ("'typed'", "'bare'", "'None'") if name in line] == [
        "'typed'",
        "'bare'",
        "'None'",
    ]
    assert "inputSchema" in told[1]


async def test_noise_between_messages_is_passed_over(open_flows: Open) -> None:
    async with open_flows({"bad": bad("noise")}) as flows:
        assert await flows.output("mcp:bad/call") == "fine"


async def test_of_two_tools_with_one_name_the_first_counts(open_flows: Open) -> None:
    async with open_flows({"bad": bad("twice")}) as flows:
        assert await flows.output("mcp:bad/call") == "fine"
        assert flows.registry.find("bad").tools == ("mcp:bad/call", "mcp:bad/once")


async def test_a_flood_of_progress_leaves_a_bounded_journal(open_flows: Open) -> None:
    async with open_flows({"bad": bad("progress")}) as flows:
        run_id = await flows.start("mcp:bad/call")
        assert (await flows.end(run_id)).output == {"t": "fine"}
        assert 0 < len(await flows.logs(run_id)) <= 100


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes that are not its children")
async def test_the_end_of_the_event_loop_leaves_nothing_of_a_server_that_will_not_end(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    os.mkfifo(heard)
    script = f"trap '' TERM; sleep 1000 & read line; echo $$ $! > {heard}; wait"
    target = StdioTarget(command="/bin/sh", args=("-c", script), env=dict, cwd=None)
    is_open = anyio.Event()

    async def live() -> None:
        async with stdio_transport(target, max_bytes=1000, on_end=print):
            is_open.set()
            await anyio.sleep_forever()

    with anyio.fail_after(20):
        living = asyncio.create_task(live())
        await is_open.wait()
        living.cancel()
        told = await anyio.to_thread.run_sync(heard.read_text, abandon_on_cancel=True)  # that its input has ended
        ends = [os.pidfd_open(int(pid)) for pid in told.split()]
        living.cancel()  # as asyncio cancels what is left when its loop ends; no scope of anyio holds that off
        for end in ends:
            await anyio.wait_readable(end)
            os.close(end)
        with pytest.raises(asyncio.CancelledError):
            await living


async def test_a_server_over_http_that_forgot_its_sessions_is_asked_again(
    http_server: HttpServer, open_flows: Open
) -> None:
    async with open_flows({"ex": {"url": http_server.url}}) as flows:
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}
        await http_server.restart()
        assert await flows.output("mcp:ex/add", a=2) == {"total": 3}
        assert http_server.events.history == ["add", "add"]


async def test_error_statuses_tell_their_kind_and_spare_the_session(http_server: HttpServer, open_flows: Open) -> None:
    async with open_flows({"ex": {"url": http_server.url}}) as flows:
        await flows.output("mcp:ex/add", a=1)
        told = {}
        for status in (401, 429, 500, 503, 504):
            body = json.dumps({"error": "no"}).encode()
            http_server.answers.append((status, {"content-type": "application/json", "retry-after": "7"}, body))
            view = await flows.run("mcp:ex/add", {"retry": {"max_attempts": 1}}, a=1)
            assert view.error is not None
            assert f"it answered {status}" in view.error.message
            assert view.error.details is not None
            assert view.error.details["retry_after_s"] == 7
            told[status] = view.error.kind
        assert told == {401: "invalid", 429: "rate_limit", 500: "network", 503: "network", 504: "timeout"}
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}
        assert flows.state("ex").startswith("connected")


async def test_answers_over_http_are_bounded(http_server: HttpServer, open_flows: Open) -> None:
    async with open_flows({"ex": {"url": http_server.url}}, max_output_bytes=100_000) as flows:
        await flows.output("mcp:ex/add", a=1)
        big = b'{"jsonrpc": "2.0", "id": 1, "result": {"content": "' + b"x" * 5_000_000
        http_server.answers.append((200, {"content-type": "application/json"}, big))
        kind, message = await flows.failure("mcp:ex/add", a=1)
        assert (kind, message) == ("invalid", TOO_LARGE)
        http_server.answers.append((200, {"content-type": "text/event-stream"}, b"event: message\ndata: " + big))
        kind, message = await flows.failure("mcp:ex/add", a=1)
        assert (kind, message) == ("invalid", TOO_LARGE)
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}


async def test_headers_do_not_follow_a_redirect_to_another_server(http_server: HttpServer, open_flows: Open) -> None:
    entry = {"url": http_server.url, "headers": {"X-Key": "of this server alone"}}
    async with open_flows({"ex": entry}) as flows:
        await flows.output("mcp:ex/add", a=1)
        http_server.answers.append((307, {"location": "http://localhost:9/mcp"}, b""))
        kind, message = await flows.failure("mcp:ex/add", a=1)
        assert kind == "network"
        assert "it redirects to http://localhost:9, where its headers must not go" in message
        http_server.answers.append((307, {"location": http_server.url}, b""))
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}


async def test_an_address_where_nobody_listens_is_a_network_failure(open_flows: Open) -> None:
    async with open_flows({"ex": {"url": "http://127.0.0.1:9/mcp"}}) as flows:
        with anyio.fail_after(30):
            await flows.registry.ready(["mcp:ex/add"])
        assert flows.state("ex").startswith("failed: it cannot be reached")
