"""A server process over streamable HTTP: both eras, who may call, several clients, and an orderly end."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import httpx
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
LEGACY = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a test", "version": "1"}}
LONG = {"stages": [{"name": "main", "tasks": [{"name": "long", "type": "wait", "parameters": {"seconds": 3600}}]}]}
BRIEF = {"stages": [{"name": "main", "tasks": [{"name": "brief", "type": "wait", "parameters": {"seconds": 0.3}}]}]}


async def test_a_flow_runs_over_streamable_http(serve: Callable[..., Any], era: str) -> None:
    served = serve()
    with anyio.fail_after(30):
        async with served.client(era) as client:
            assert len((await client.list_tools()).tools) == 12
            told: list[float] = []

            async def note(progress: float, total: float | None, message: str | None) -> None:
                told.append(progress)

            run = await client.call_tool("execute_flow", {"workflow_def": BRIEF, "wait_s": 20}, progress_callback=note)
            assert run.structured_content["state"] == "completed"
            assert told
            run_id = run.structured_content["run_id"]
            events = await client.call_tool("get_flow_status", {"run_id": run_id, "detail": "events"})
            actors = {event["actor"] for event in events.structured_content["events"] if "actor" in event}
            assert actors == {"mcp/http/execute_flow"}
            content = await client.read_resource(f"flow://runs/{run_id}")
            assert json.loads(content.contents[0].text)["state"] == "completed"


async def test_no_post_is_redirected_and_mcp_is_there_with_a_slash_at_its_end_too(serve: Callable[..., Any]) -> None:
    served = serve()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": LEGACY}
    accepts = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
        for path in ("/mcp", "/mcp/"):
            answer = await http.post(path, json=ping, headers=accepts)
            assert (answer.status_code, "contexten-flow" in answer.text) == (200, True), path
        for path in ("/api", "/api/", "/api/runs/", "/healthz/", "/metrics/"):
            answer = await http.post(path, json={})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path


async def test_clients_of_both_eras_follow_one_run_at_once(serve: Callable[..., Any]) -> None:
    served = serve()
    uri = "flow://flows"
    ready = [anyio.Event(), anyio.Event()]
    told = [anyio.Event(), anyio.Event()]

    async def listen() -> None:
        async with served.client("2026-07-28") as client, client.listen(resource_subscriptions=[uri]) as subscription:
            ready[0].set()
            async for event in subscription:
                assert event.uri == uri
                told[0].set()
                break

    async def subscribe() -> None:
        async def hear(message: Any) -> None:
            if isinstance(message, types.ResourceUpdatedNotification):
                told[1].set()

        async with served.client("legacy", message_handler=hear) as client:
            await client.subscribe_resource(uri)
            # The standing stream is opened by the client in the background; ask until a change has come through it.
            ready[1].set()
            while not told[1].is_set():
                await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            await client.unsubscribe_resource(uri)

    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            group.start_soon(subscribe)
            await ready[0].wait()
            await ready[1].wait()
            async with served.client("2026-07-28") as client:
                await client.call_tool("execute_flow", {"workflow_def": VALUE})
            await told[0].wait()
            await told[1].wait()


async def test_a_client_that_vanishes_in_mid_call_does_not_touch_the_run(serve: Callable[..., Any], era: str) -> None:
    served = serve()
    with anyio.fail_after(30):
        async with served.client("2026-07-28") as watching:
            async with anyio.create_task_group() as group:

                async def vanish() -> None:
                    async with served.client(era) as client:
                        await client.call_tool("execute_flow", {"workflow_def": LONG, "wait_s": 45})

                group.start_soon(vanish)
                rows: list[Any] = []
                while not rows or rows[0]["state"] == "scheduled":
                    found = await watching.call_tool("list_flows", {"kind": "runs"})
                    rows = found.structured_content["runs"]
                group.cancel_scope.cancel()
            run_id = rows[0]["run_id"]
            status = await watching.call_tool("get_flow_status", {"run_id": run_id})
            assert status.structured_content["state"] in ("running", "waiting")
            await watching.call_tool("control_flow", {"run_id": run_id, "action": "cancel"})
            ended = await watching.call_tool("wait_for_flow", {"run_id": run_id, "timeout_s": 20})
            assert ended.structured_content["state"] == "cancelled"


async def test_the_process_pages_answer(serve: Callable[..., Any]) -> None:
    served = serve()
    async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
        assert (await http.get("/healthz")).status_code == 200
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        index = await http.get("/")
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        assert (await http.get("/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:6274"}, 200),
    ],
)
async def test_hosts_and_origins_of_elsewhere_are_refused(
    serve: Callable[..., Any], headers: dict[str, str], status: int
) -> None:
    served = serve()
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    request["params"] = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
        assert (await http.post("/mcp", json=request, headers={**accept, **headers})).status_code == status
        page = await http.get("/", headers=headers)
        assert page.status_code == (403 if status == 200 else status)  # its pages are its own origin's, port and all
        if status != 200:
            assert (await http.get("/sse", headers=headers)).status_code == status


async def test_with_tokens_all_but_health_the_page_and_hooks_wants_one(serve: Callable[..., Any], era: str) -> None:
    served = serve(token="first-token,second-token")
    served.token = "second-token"
    async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
        for path in ("/api/flows", "/metrics", "/mcp", "/sse", "/nothing"):
            refused = await http.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        assert (await http.post("/messages/?session_id=x", json={})).status_code == 401
        wrong = await http.get("/api/flows", headers={"Authorization": "Bearer wrong-token"})
        assert wrong.status_code == 401
        assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
        assert (await http.get("/api/flows", headers={"Authorization": "Basic Zmlyc3QtdG9rZW4="})).status_code == 401
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/")).status_code == 200
        assert (await http.post("/hooks/none")).status_code == 404
        assert (await http.get("/api/flows", headers={"Authorization": "bearer first-token"})).status_code == 200
    with anyio.fail_after(20):
        async with served.client(era) as client:
            assert len((await client.list_tools()).tools) == 12


async def test_a_session_belongs_to_the_token_that_began_it(serve: Callable[..., Any]) -> None:
    served = serve(token="one-token,other-token")
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=served.base, timeout=30, headers=accept) as http:
        begun = await http.post("/mcp", json=request, headers={"Authorization": "Bearer one-token"})
        assert begun.status_code == 200
        session = {"Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        taken = await http.post("/mcp", json=ping, headers={**session, "Authorization": "Bearer other-token"})
        assert taken.status_code == 404
        own = await http.post("/mcp", json=ping, headers={**session, "Authorization": "Bearer one-token"})
        assert own.status_code == 200


def _run(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "contexten_server", "serve", "--transport", "http", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_a_port_in_use_is_told_plainly(environment: Callable[..., dict[str, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _run(environment(), "--port", str(port))
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_address_that_others_reach_is_refused_without_tokens(environment: Callable[..., dict[str, str]]) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        done = _run(environment(), "--host", host, "--port", "0")
        assert done.returncode == 1
        assert "CONTEXTEN_FLOW_TOKENS" in done.stderr
        assert "Traceback" not in done.stderr


async def test_with_tokens_all_addresses_may_be_listened_on(serve: Callable[..., Any]) -> None:
    served = serve("--host", "0.0.0.0", token="a-token")
    base = served.base.replace("0.0.0.0", "127.0.0.1")
    async with httpx.AsyncClient(base_url=base, timeout=30) as http:
        assert (await http.get("/api/flows")).status_code == 401
        assert (await http.get("/api/flows", headers={**served.headers, "Host": "some.name:1"})).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_code_0_though_streams_are_open(
    serve: Callable[..., Any], number: int
) -> None:
    served = serve(STOP_GRACE_S="20")  # streams are closed at once; nothing is cut off before that
    opened = [anyio.Event(), anyio.Event(), anyio.Event()]
    graceful = anyio.Event()

    async def listen() -> None:
        async with (
            served.client("2026-07-28") as client,
            client.listen(resource_subscriptions=["flow://flows"]) as subscription,
        ):
            opened[0].set()
            assert [event async for event in subscription] == []
            graceful.set()

    async def stand(path: str, event: anyio.Event) -> None:
        headers = {"Accept": "text/event-stream"}
        async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
            if path == "/mcp":
                begun = await http.post(
                    "/mcp",
                    json={
                        "jsonrpc": "2.0",
                        "id": 1,
                        "method": "initialize",
                        "params": {
                            "protocolVersion": "2025-11-25",
                            "capabilities": {},
                            "clientInfo": {"name": "x", "version": "1"},
                        },
                    },
                    headers={"Accept": "application/json, text/event-stream"},
                )
                headers["Mcp-Session-Id"] = begun.headers["mcp-session-id"]
            async with http.stream("GET", path, headers=headers) as response:
                assert response.status_code == 200
                event.set()
                async for _ in response.aiter_raw():
                    pass

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            group.start_soon(stand, "/sse", opened[1])
            group.start_soon(stand, "/mcp", opened[2])
            for event in opened:
                await event.wait()
            served.process.send_signal(number)
            code = await anyio.to_thread.run_sync(served.process.wait, 20)
            assert code == 0
            await graceful.wait()
            group.cancel_scope.cancel()
    assert "Traceback" not in served.process.stderr.read()
