"""All of an app over HTTP, served or mounted."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import httpx2
import pytest
from fastapi import FastAPI
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.testclient import TestClient

from contexten import ContextenApp, StartFlow
from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.triggers.model import TriggerEvent

if TYPE_CHECKING:
    from tests.unit.app.conftest import Http, Request, Wait

    from contexten.events import EventFunction

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]


async def tools_of(app: Any, url: str) -> list[Any]:
    """The tools that an MCP client is offered."""
    async with (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http,
        Client(streamable_http_client(url, http_client=http)) as mcp,
    ):
        return (await mcp.list_tools()).tools


async def test_mounted_under_another_application_it_opens_with_its_first_request(
    app: ContextenApp, echo: dict[str, Any], github: Request, client: Http, output: Wait
) -> None:
    @app.github.event("pull_request")
    async def review(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": "mounted"})

    outer = FastAPI()
    outer.mount("/flows", app.asgi)
    async with client(outer) as http:
        was_open = app.flow_manager.is_open
        assert (await http.get("/flows/healthz")).text == "ok\n"
        assert (was_open, app.flow_manager.is_open) == (False, True)
        assert (await http.get("/flows/readyz")).json() == {"ready": True}
        sent = github()
        assert (await http.post(f"/flows{sent.pop('url')}", **sent)).status_code == 202
        assert await output(app) == {"text": "mounted"}
        assert len((await http.get("/flows/api/runs")).json()["runs"]) == 1
        assert len(await tools_of(outer, "http://127.0.0.1/flows/mcp")) == 12
        page = await http.get("/flows/")
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert (await http.get("/flows/nothing")).status_code == 404


def test_a_server_opens_and_closes_it_by_its_lifespan(settings: FlowSettings, client: Http) -> None:
    app = ContextenApp(settings=settings)
    for _ in range(2):
        with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000)) as http:
            assert app.flow_manager.is_open
            assert http.get("/readyz").status_code == 200
        assert not app.flow_manager.is_open


@pytest.mark.timeout(30)
def test_a_program_that_fails_while_it_serves_ends_with_its_error(settings: FlowSettings, client: Http) -> None:
    async def program() -> None:
        async with client(ContextenApp(settings=settings)) as http:
            assert (await http.get("/readyz")).status_code == 200
        raise LookupError("the program's own")

    with pytest.raises(LookupError, match="the program's own"):
        asyncio.run(program())


@pytest.mark.parametrize("sender", ["10.1.2.3", "::ffff:10.1.2.3"])
async def test_without_tokens_only_this_machine_is_answered_but_for_hooks(
    app: ContextenApp, sender: str, decide_nothing: EventFunction, github: Request, client: Http
) -> None:
    app.github.event("pull_request")(decide_nothing)
    async with client(app, sender) as http:
        for path in ("/", "/api/runs", "/mcp", "/metrics"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "authentication_needed")
        assert not app.flow_manager.is_open
        assert (await http.post(**github())).status_code == 202
        assert (await http.get("/healthz")).status_code == 200
    async with client(app, headers={"Host": "evil.example"}) as http:
        assert (await http.get("/api/runs")).status_code == 421


async def test_with_tokens_everybody_needs_one(settings: FlowSettings, client: Http) -> None:
    app = ContextenApp(settings=settings.model_copy(update={"tokens": ("a-token",)}))
    async with app, client(app, "10.1.2.3", headers={"Host": "flows.example.com"}) as http:
        assert (await http.get("/api/runs")).status_code == 401
        allowed = await http.get("/api/runs", headers={"Authorization": "Bearer a-token"})
        assert allowed.json() == {"runs": []}


async def test_a_database_that_cannot_be_used_is_told_until_it_can(
    app: ContextenApp, settings: FlowSettings, client: Http
) -> None:
    settings.database.mkdir()
    async with client(app) as http:
        refused = await http.get("/api/runs")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_error")
        settings.database.rmdir()
        assert (await http.get("/api/runs")).status_code == 200


async def test_closing_ends_open_streams(app: ContextenApp) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not requests:
            await anyio.sleep_forever()
        return requests.pop()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            begun.set()
            if not message.get("more_body"):
                ended.set()

    scope = {"type": "http", "method": "GET", "path": "/api/events", "raw_path": b"/api/events", "query_string": b"",
             "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
             "scheme": "http", "http_version": "1.1", "root_path": ""}  # fmt: skip
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(app, scope, receive, send)
            await begun.wait()
            await app.aclose()
            await ended.wait()


def test_the_example_serves_and_ends_in_order(tmp_path: Path, signing_secrets: dict[str, str]) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXTEN_FLOW_")}
    env |= signing_secrets | {
        "CONTEXTEN_FLOW_DATABASE": str(tmp_path / "flow.sqlite3"),
        "CONTEXTEN_FLOW_SECRETS": ",".join(f"{name}@tool:hooks" for name in signing_secrets),
        "PORT": "0",
    }
    folder = ROOT / "examples" / "contexten_app"
    process = subprocess.Popen(
        [sys.executable, str(folder / "app.py")], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"listening on (http://[^/ ]+)/mcp", line) for line in process.stderr)))
        base = found[1]
        sent = subprocess.check_output(
            [sys.executable, str(folder / "send_event.py"), base], env=env, cwd=tmp_path, text=True
        )
        assert sent.startswith("202 ")
        assert httpx.get(f"{base}/api/triggers").json()["triggers"][0]["trigger_id"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
