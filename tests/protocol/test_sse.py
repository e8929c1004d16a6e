"""A server process over SSE, the transport of older clients."""

import json
from collections.abc import Callable
from typing import Any

import anyio
import mcp_types as types
import pytest

pytestmark = [
    pytest.mark.anyio,
    # They are what clients of 2025-11-25 have.
    pytest.mark.filterwarnings("ignore:resources/"),
]

VALUE = {
    "stages": [
        {
            "name": "main",
            "tasks": [{"name": "value", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}],
        }
    ]
}


async def test_a_flow_runs_over_sse(serve: Callable[..., Any], era: str) -> None:
    served = serve()
    with anyio.fail_after(30):
        async with served.client(era, transport="sse") as client:
            assert len((await client.list_tools()).tools) == 12
            run = await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            assert run.structured_content["output"] == {"value": 1}
            run_id = run.structured_content["run_id"]
            events = await client.call_tool("get_flow_status", {"run_id": run_id, "detail": "events"})
            actors = {event["actor"] for event in events.structured_content["events"] if "actor" in event}
            assert actors == {"mcp/sse/execute_flow"}
            content = await client.read_resource(f"flow://runs/{run_id}/outputs/value")
            assert json.loads(content.contents[0].text) == 1


async def test_subscriptions_reach_an_sse_client(serve: Callable[..., Any]) -> None:
    served = serve()
    told = anyio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.set()

    with anyio.fail_after(30):
        async with served.client("legacy", transport="sse", message_handler=hear) as client:
            await client.subscribe_resource("flow://flows")
            await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            await told.wait()
            await client.unsubscribe_resource("flow://flows")  # its client stumbles over late news


async def test_clients_of_both_transports_share_one_service(serve: Callable[..., Any]) -> None:
    served = serve()
    with anyio.fail_after(30):
        async with (
            served.client("legacy", transport="sse") as one,
            served.client("legacy", transport="sse") as two,
            served.client("2026-07-28") as three,
        ):
            run = await one.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            for other in (two, three):
                status = await other.call_tool("get_flow_status", {"run_id": run.structured_content["run_id"]})
                assert status.structured_content["state"] == "completed"


async def test_a_token_is_wanted_and_taken(serve: Callable[..., Any]) -> None:
    served = serve(token="a-token")
    with anyio.fail_after(30):
        async with served.client("legacy", transport="sse") as client:
            assert not (await client.call_tool("list_flows", {})).is_error


async def test_a_client_that_vanishes_leaves_the_server_at_work(serve: Callable[..., Any]) -> None:
    served = serve()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            connected = anyio.Event()

            async def vanish() -> None:
                async with served.client("legacy", transport="sse") as client:
                    await client.subscribe_resource("flow://flows")
                    connected.set()
                    await anyio.sleep_forever()

            group.start_soon(vanish)
            await connected.wait()
            group.cancel_scope.cancel()
        async with served.client("legacy", transport="sse") as client:
            run = await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            assert run.structured_content["state"] == "completed"
