"""An app with secrets, requests as GitHub, Linear and Slack send them, and the wait for what becomes of each."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import httpx
import pytest

from contexten import ContextenApp
from contexten.events import EventFunction
from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.triggers.model import TriggerEvent

Request: TypeAlias = Callable[..., dict[str, Any]]
Http: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
Wait: TypeAlias = Callable[..., Awaitable[Any]]

SECRETS = {
    "GITHUB_WEBHOOK_SECRET": "It's a Secret to Everybody",
    "LINEAR_WEBHOOK_SECRET": "lin_wh_secret",
    "SLACK_SIGNING_SECRET": "8f742231b10e8888abcd99yyyzzz85a5",
}
ECHO = {
    "name": "Echo",
    "inputs": {"type": "object", "properties": {"text": {}, "event": {}}},
    "stages": [
        {
            "name": "only",
            "tasks": [{"name": "echo", "required_tools": ["data_processor"],
                       "parameters": {"data": "{{ inputs }}", "query": "@"}}],
        }
    ],
}  # fmt: skip
# https://docs.github.com/en/webhooks/webhook-events-and-payloads#pull_request
PULL_REQUEST = {
    "action": "opened",
    "number": 2,
    "pull_request": {
        "url": "https://api.github.com/repos/Codertocat/Hello-World/pulls/2",
        "number": 2,
        "state": "open",
        "title": "Update the README with new information.",
        "user": {"login": "Codertocat", "id": 21031067},
        "draft": False,
    },
    "repository": {"id": 186853002, "full_name": "Codertocat/Hello-World"},
    "sender": {"login": "Codertocat", "id": 21031067},
}
# https://linear.app/developers/webhooks
ISSUE = {
    "action": "create",
    "type": "Issue",
    "data": {"id": "2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9", "title": "Crash at start", "teamId": "539068e2"},
    "url": "https://linear.app/issue/LIN-1778/foo-bar",
    "createdAt": "2020-01-23T12:53:18.084Z",
    "organizationId": "dc844923-f9a4-40a3-825c-dea7747e57d6",
    "webhookId": "000042e3-d123-4980-b49f-8e140eef9329",
}


def sign(secret: str, body: bytes) -> str:
    return hmac.new(SECRETS[secret].encode(), body, "sha256").hexdigest()


def _github(payload: Any = PULL_REQUEST, event: str = "pull_request", delivery: str = "72d3162e") -> dict[str, Any]:
    body = json.dumps(payload).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + sign("GITHUB_WEBHOOK_SECRET", body),
    }
    return {"url": "/hooks/github", "content": body, "headers": headers}


def _linear() -> dict[str, Any]:
    body = json.dumps({**ISSUE, "webhookTimestamp": int(time.time() * 1000)}).encode()
    headers = {
        "Content-Type": "application/json",
        "Linear-Event": "Issue",
        "Linear-Delivery": "234d1a4e",
        "Linear-Signature": sign("LINEAR_WEBHOOK_SECRET", body),
    }
    return {"url": "/hooks/linear", "content": body, "headers": headers}


def _slack(body: bytes) -> dict[str, Any]:
    sent = str(int(time.time()))
    headers = {
        "Content-Type": "application/json" if body.startswith(b"{") else "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": sent,
        "X-Slack-Signature": "v0=" + sign("SLACK_SIGNING_SECRET", f"v0:{sent}:".encode() + body),
    }
    return {"url": "/hooks/slack", "content": body, "headers": headers}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowSettings:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    grants = tuple(SecretGrant(name=name, tools=("hooks",)) for name in SECRETS)
    return FlowSettings(
        database=tmp_path / "flow.sqlite3", durability="process", stop_grace_s=0.2, secrets=grants, log_level="WARNING"
    )


@pytest.fixture
async def app(settings: FlowSettings) -> AsyncIterator[ContextenApp]:
    """An app on which nothing is declared yet; closed at the end."""
    app = ContextenApp(name="workflow-app", settings=settings)
    yield app
    await app.aclose()


@asynccontextmanager
async def _client(app: Any, sender: str = "127.0.0.1", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=(sender, 5000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options) as http:
        yield http


async def _settled(app: ContextenApp, delivery_id: str | None = None) -> Any:
    """The delivery (the only one, where none is named) once something has become of it."""
    service = await app.flow_manager.service()
    changed = anyio.Event()

    def heard(_change: object) -> None:
        changed.set()

    stop = service.subscribe(heard)
    try:
        with anyio.fail_after(20):
            while True:
                changed = anyio.Event()
                found = (await service.triggers.deliveries()).deliveries
                (delivery,) = [one for one in found if delivery_id in (None, one.delivery_id)]
                if delivery.state != "accepted":
                    return delivery
                await changed.wait()
    finally:
        stop()


async def _output(app: ContextenApp, delivery_id: str | None = None) -> Any:
    """What the run has put out that the delivery started."""
    delivery = await _settled(app, delivery_id)
    assert delivery.state == "started", delivery
    service = await app.flow_manager.service()
    with anyio.fail_after(20):
        run = await service.wait(delivery.run_id)
    assert run.state == "completed"
    return json.loads(await service.run_output(delivery.run_id))["echo"]


async def _decide_nothing(event: TriggerEvent) -> None:
    """Starts nothing."""


@pytest.fixture
def echo() -> dict[str, Any]:
    """A flow whose output is its inputs."""
    return ECHO


@pytest.fixture
def pull_request() -> dict[str, Any]:
    """What GitHub sends of a new one."""
    return PULL_REQUEST


@pytest.fixture
def signing_secrets() -> dict[str, str]:
    """What the senders sign with, by name."""
    return SECRETS


@pytest.fixture
def decide_nothing() -> EventFunction:
    """A function for events."""
    return _decide_nothing


@pytest.fixture
def github() -> Request:
    """A signed request of GitHub: payload, event and delivery."""
    return _github


@pytest.fixture
def linear() -> Request:
    """A signed request of Linear."""
    return _linear


@pytest.fixture
def slack() -> Request:
    """A signed request of Slack with that body."""
    return _slack


@pytest.fixture
def client() -> Http:
    """A client of an ASGI application: `async with client(app) as http`."""
    return _client


@pytest.fixture
def settled() -> Wait:
    """Wait until something has become of a delivery of an app."""
    return _settled


@pytest.fixture
def output() -> Wait:
    """Wait for the output of the run that a delivery of an app started."""
    return _output
