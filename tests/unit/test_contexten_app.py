"""ContextenApp: what starts flows, by the vendors' own examples, and all of it over HTTP, served or mounted."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

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
from contexten.extensions.flow import FlowManager, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.triggers.model import TriggerEvent

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
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

SNIPPET = """
from contexten import ContextenApp

app = ContextenApp(name="workflow-app")
flow_manager = app.flow_manager
"""

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
# https://docs.slack.dev/reference/events/app_mention
MENTION = {
    "token": "ZZZZZZWSxiZZZ2yIvs3peJ",
    "team_id": "T123ABC456",
    "api_app_id": "A123ABC456",
    "event": {
        "type": "app_mention",
        "user": "U123ABC456",
        "text": "What is the hour of the pearl, <@U0LAN0Z89>?",
        "ts": "1515449522.000016",
        "channel": "C123ABC456",
        "event_ts": "1515449522000016",
    },
    "type": "event_callback",
    "event_id": "Ev123ABC456",
    "event_time": 1515449522000016,
}
# https://docs.slack.dev/interactivity/implementing-slash-commands
COMMAND = {
    "token": "gIkuvaNzQIHg97ATvDxqgjtO",
    "team_id": "T0001",
    "channel_id": "C2147483705",
    "user_id": "U2147483697",
    "command": "/deploy",
    "text": "94070",
    "response_url": "https://hooks.slack.com/commands/1234/5678",
    "trigger_id": "13345224609.738474920.8088930838d88f008e0",
    "api_app_id": "A123456",
}


def sign(secret: str, body: bytes) -> str:
    return hmac.new(SECRETS[secret].encode(), body, "sha256").hexdigest()


def github(payload: Any = PULL_REQUEST, event: str = "pull_request", delivery: str = "72d3162e") -> dict[str, Any]:
    body = json.dumps(payload).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + sign("GITHUB_WEBHOOK_SECRET", body),
    }
    return {"url": "/hooks/github", "content": body, "headers": headers}


def linear() -> dict[str, Any]:
    body = json.dumps({**ISSUE, "webhookTimestamp": int(time.time() * 1000)}).encode()
    headers = {
        "Content-Type": "application/json",
        "Linear-Event": "Issue",
        "Linear-Delivery": "234d1a4e",
        "Linear-Signature": sign("LINEAR_WEBHOOK_SECRET", body),
    }
    return {"url": "/hooks/linear", "content": body, "headers": headers}


def slack(body: bytes) -> dict[str, Any]:
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
async def client(app: Any, sender: str = "127.0.0.1", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=(sender, 5000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options) as http:
        yield http


async def tools_of(app: Any, url: str) -> list[Any]:
    """The tools that an MCP client is offered."""
    async with (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http,
        Client(streamable_http_client(url, http_client=http)) as mcp,
    ):
        return (await mcp.list_tools()).tools


async def settled(app: ContextenApp, delivery_id: str | None = None) -> Any:
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


async def output(app: ContextenApp, delivery_id: str | None = None) -> Any:
    """What the run has put out that the delivery started."""
    delivery = await settled(app, delivery_id)
    assert delivery.state == "started", delivery
    service = await app.flow_manager.service()
    with anyio.fail_after(20):
        run = await service.wait(delivery.run_id)
    assert run.state == "completed"
    return json.loads(await service.run_output(delivery.run_id))["echo"]


# The seed's words
async def test_the_flow_manager_of_an_app_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_DATABASE", str(tmp_path / "flow.sqlite3"))
    names: dict[str, Any] = {}
    exec(SNIPPET, names)
    created = await names["flow_manager"].create_flow(name="Echo", workflow_def=ECHO)
    run = await names["flow_manager"].execute_flow(created["flow_id"])
    assert run["state"] == "completed"
    await names["app"].aclose()


def test_importing_contexten_imports_nothing_else() -> None:
    code = "import sys, contexten; print([name for name in sys.modules if name.startswith(('contexten.', 'pydantic'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# Events
async def test_a_pull_request_starts_the_flow_that_a_function_names_once(app: ContextenApp) -> None:
    seen: list[TriggerEvent] = []

    @app.github.event("pull_request:opened")
    async def review(event: TriggerEvent) -> StartFlow:
        seen.append(event)
        return StartFlow(workflow_def=ECHO, inputs={"text": event.payload["pull_request"]["title"]}, priority="high")

    async with client(app) as http:
        first, again = await http.post(**github()), await http.post(**github())
        assert (first.status_code, again.status_code) == (202, 200)
        assert first.json() == again.json()
        assert await output(app) == {"text": "Update the README with new information."}
        (run,) = (await http.get("/api/runs")).json()["runs"]
        assert run["priority"] == 1
    assert [(event.kind, event.type, event.id) for event in seen] == [("github", "pull_request:opened", "72d3162e")]


async def test_an_issue_of_linear_starts_a_flow(app: ContextenApp) -> None:
    @app.linear.event("Issue:create")
    async def triage(event: TriggerEvent) -> dict[str, Any]:
        return {"workflow_def": ECHO, "inputs": {"text": event.payload["data"]["title"]}}

    async with client(app) as http:
        assert (await http.post(**linear())).status_code == 202
        assert await output(app) == {"text": "Crash at start"}


async def test_a_mention_and_a_command_of_slack_start_flows(app: ContextenApp) -> None:
    @app.slack.event("app_mention")
    async def mentioned(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": event.payload["event"]["text"]})

    @app.slack.command("/deploy")
    async def deploy(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": event.payload["text"]})

    async with client(app) as http:
        mention = await http.post(**slack(json.dumps(MENTION).encode()))
        assert mention.status_code == 200
        command = await http.post(**slack(urlencode(COMMAND).encode()))
        assert (command.status_code, command.json()["response_type"]) == (200, "ephemeral")
        service = await app.flow_manager.service()
        by_type = {one.type: one.delivery_id for one in (await service.triggers.deliveries()).deliveries}
        assert await output(app, by_type["app_mention"]) == {"text": MENTION["event"]["text"]}  # type: ignore[index]  # it is a mapping
        assert await output(app, by_type["/deploy"]) == {"text": "94070"}
        challenge = {"type": "url_verification", "challenge": "3eZbrw1a", "token": "x"}
        assert (await http.post(**slack(json.dumps(challenge).encode()))).json() == {"challenge": "3eZbrw1a"}


async def test_what_nobody_signed_or_declared_starts_nothing(app: ContextenApp) -> None:
    app.github.on("pull_request:opened", flow_id="none")
    async with client(app) as http:
        forged = github()
        forged["content"] += b" "
        assert (await http.post(**forged)).status_code == 401
        ignored = await http.post(**github({**PULL_REQUEST, "action": "closed"}))
        assert (ignored.status_code, "ignored" in ignored.json()) == (200, True)
        service = await app.flow_manager.service()
        assert (await service.triggers.deliveries()).deliveries == []


async def test_a_rule_starts_a_saved_flow_where_its_filter_holds(app: ContextenApp) -> None:
    app.github.on(
        "pull_request",
        flow_id="echo",
        inputs={"text": "#{{ event.payload.number }}"},
        filter="event.payload.pull_request.draft == false",
    )
    async with client(app) as http:
        await app.flow_manager.create_flow(workflow_def=ECHO, flow_id="echo")
        draft = {**PULL_REQUEST, "pull_request": {"draft": True}}
        held = (await http.post(**github(draft, delivery="draft"))).json()["delivery_id"]
        assert (await settled(app, held)).state == "filtered"
        started = (await http.post(**github())).json()["delivery_id"]
        assert await output(app, started) == {"text": "#2"}


async def test_a_rule_without_inputs_gives_the_flow_the_event_that_it_declares(app: ContextenApp) -> None:
    app.github.on("pull_request", flow_id="echo")
    async with client(app) as http:
        await app.flow_manager.create_flow(workflow_def=ECHO, flow_id="echo")
        await http.post(**github())
        assert (await output(app))["event"]["payload"] == PULL_REQUEST


def test_a_rule_is_checked_where_it_is_declared(settings: FlowSettings) -> None:
    with pytest.raises(InvalidArguments, match=r"event\.payload"):
        ContextenApp(settings=settings).github.on("push", flow_id="x", filter="payload.ref == 'main'")
    with pytest.raises(InvalidArguments, match="time zone"):
        ContextenApp(settings=settings).cron("0 9 * * *", timezone="Europe/Berlim")(decide_nothing)


async def decide_nothing(event: TriggerEvent) -> None:
    """Starts nothing."""


async def test_the_first_function_that_answers_a_flow_starts_it(app: ContextenApp) -> None:
    app.github.event("pull_request:opened")(decide_nothing)

    @app.github.event("pull_request")
    async def second(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": "second"})

    @app.github.event("pull_request")
    async def third(event: TriggerEvent) -> StartFlow:
        raise AssertionError("it is not asked")

    async with client(app) as http:
        await http.post(**github())
        assert await output(app) == {"text": "second"}


async def test_an_answer_that_cannot_be_followed_is_told_with_the_delivery(app: ContextenApp) -> None:
    @app.github.event("pull_request")
    async def mistaken(event: TriggerEvent) -> dict[str, Any]:
        return {"flow": "echo"}

    async with client(app) as http:
        await http.post(**github())
        delivery = await settled(app)
    assert (delivery.state, delivery.error.code) == ("failed", "invalid_arguments")
    assert "'flow'" in delivery.error.message
    assert "'flow_id'" in delivery.error.next


async def test_a_schedule_asks_its_function(app: ContextenApp) -> None:
    @app.cron("0 9 * * 1-5", timezone="Europe/Berlin", overlap="allow")
    async def morning(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": event.type})

    async with app:
        service = await app.flow_manager.service()
        saved = await service.triggers.get("workflow-app.morning")
        assert saved.next_at is not None
        assert saved.config["timezone"] == "Europe/Berlin"
        await service.triggers.test(saved.trigger_id, start=True, actor=PYTHON)
        assert await output(app) == {"text": "tick"}


# Opening
async def test_what_is_declared_later_is_refused(app: ContextenApp) -> None:
    async with app:
        with pytest.raises(RuntimeError, match="before its first use"):
            app.github.event("push")(decide_nothing)


async def test_a_secret_that_the_settings_do_not_name_is_told_at_the_start(settings: FlowSettings) -> None:
    app = ContextenApp(settings=settings.model_copy(update={"secrets": ()}))
    app.slack.event("app_mention")(decide_nothing)
    with pytest.raises(InvalidArguments, match="SLACK_SIGNING_SECRET"):
        await app.start()
    await app.aclose()


async def test_a_trigger_of_somebody_else_is_not_taken(settings: FlowSettings) -> None:
    async with FlowManager(settings=settings) as manager:
        await manager.create_flow(workflow_def=ECHO, flow_id="echo")
        service = await manager.service()
        config = {"secret": "GITHUB_WEBHOOK_SECRET"}
        await service.triggers.create(kind="github", flow_id="echo", trigger_id="github", config=config, actor=PYTHON)
        app = ContextenApp(settings=settings)
        app.github.event("push")(decide_nothing)
        with pytest.raises(InvalidArguments, match="not the app's"):
            await app.start()
        await app.aclose()


async def test_the_trigger_follows_what_the_program_declares(settings: FlowSettings) -> None:
    for types in (["push"], ["push", "issues"], ["issues"]):
        app = ContextenApp(settings=settings)
        for type in types:
            app.github.event(type)(decide_nothing)
        async with app:
            saved = await (await app.flow_manager.service()).triggers.get("github")
            assert saved.config["events"] == sorted(types)


async def test_a_program_that_takes_from_a_trigger_what_another_declared_says_so(
    settings: FlowSettings, caplog: pytest.LogCaptureFixture
) -> None:
    for types, warnings in ((["push"], 0), (["push", "issues"], 0), (["issues"], 1)):
        app = ContextenApp(settings=settings)
        for type in types:
            app.github.event(type)(decide_nothing)
        async with app:
            assert caplog.text.count("The trigger 'github' does not take push any more") == warnings


async def test_two_apps_on_one_database_share_its_core_and_its_triggers(settings: FlowSettings) -> None:
    one, other = ContextenApp(name="one", settings=settings), ContextenApp(name="other", settings=settings)

    @one.github.event("issues")
    async def of_issues(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": "one"})

    @other.github.event("pull_request")
    async def of_pull_requests(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": "other"})

    async with other:
        async with one, client(one) as http:
            assert await one.flow_manager.service() is await other.flow_manager.service()
            issue = (await http.post(**github({"action": "opened"}, event="issues", delivery="i"))).json()
            request = (await http.post(**github())).json()
            assert await output(other, issue["delivery_id"]) == {"text": "one"}
            assert await output(one, request["delivery_id"]) == {"text": "other"}
        async with client(other) as http:  # the first has closed
            request = (await http.post(**github(delivery="later"))).json()
            assert await output(other, request["delivery_id"]) == {"text": "other"}


async def test_an_event_that_came_while_nobody_could_decide_waits_for_the_program(settings: FlowSettings) -> None:
    app = ContextenApp(settings=settings)
    app.github.event("pull_request")(decide_nothing)
    async with app:
        pass
    async with FlowManager(settings=settings) as manager:  # another program serves the database
        service = await manager.service()
        trigger = await service.triggers.get("github")
        tested = await service.triggers.test(
            "github", payload=PULL_REQUEST, type="pull_request", start=True, actor=PYTHON
        )
        assert trigger.handler == "github"
        assert tested.delivery is not None
    again = ContextenApp(settings=settings)

    @again.github.event("pull_request")
    async def review(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": "late"})

    async with again:
        assert await output(again) == {"text": "late"}


@pytest.mark.parametrize(
    "answer",
    [{"flow_id": object()}, {"flow_id": 7}, StartFlow(flow_id=7), {"inputs": 5}],  # type: ignore[arg-type]  # it is wrong
)
async def test_an_answer_with_a_field_of_a_wrong_type_fails_its_delivery_and_says_so(
    app: ContextenApp, answer: Any
) -> None:
    @app.github.event("pull_request")
    async def wrong(event: TriggerEvent) -> Any:
        return answer

    async with client(app) as http:
        await http.post(**github())
        failed = await settled(app)
        assert failed.state == "failed"
        assert failed.error is not None
        assert failed.error.code == "invalid_arguments"
        assert "A function for an event cannot be followed: its " in failed.error.message


# Serving
async def test_mounted_under_another_application_it_opens_with_its_first_request(app: ContextenApp) -> None:
    @app.github.event("pull_request")
    async def review(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=ECHO, inputs={"text": "mounted"})

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


def test_a_server_opens_and_closes_it_by_its_lifespan(settings: FlowSettings) -> None:
    app = ContextenApp(settings=settings)
    for _ in range(2):
        with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000)) as http:
            assert app.flow_manager.is_open
            assert http.get("/readyz").status_code == 200
        assert not app.flow_manager.is_open


@pytest.mark.timeout(30)
def test_a_program_that_fails_while_it_serves_ends_with_its_error(settings: FlowSettings) -> None:
    async def program() -> None:
        async with client(ContextenApp(settings=settings)) as http:
            assert (await http.get("/readyz")).status_code == 200
        raise LookupError("the program's own")

    with pytest.raises(LookupError, match="the program's own"):
        asyncio.run(program())


@pytest.mark.parametrize("sender", ["10.1.2.3", "::ffff:10.1.2.3"])
async def test_without_tokens_only_this_machine_is_answered_but_for_hooks(app: ContextenApp, sender: str) -> None:
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


async def test_with_tokens_everybody_needs_one(settings: FlowSettings) -> None:
    app = ContextenApp(settings=settings.model_copy(update={"tokens": ("a-token",)}))
    async with app, client(app, "10.1.2.3", headers={"Host": "flows.example.com"}) as http:
        assert (await http.get("/api/runs")).status_code == 401
        allowed = await http.get("/api/runs", headers={"Authorization": "Bearer a-token"})
        assert allowed.json() == {"runs": []}


async def test_a_database_that_cannot_be_used_is_told_until_it_can(app: ContextenApp, settings: FlowSettings) -> None:
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


def test_the_example_serves_and_ends_in_order(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXTEN_FLOW_")}
    env |= SECRETS | {
        "CONTEXTEN_FLOW_DATABASE": str(tmp_path / "flow.sqlite3"),
        "CONTEXTEN_FLOW_SECRETS": ",".join(f"{name}@tool:hooks" for name in SECRETS),
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
