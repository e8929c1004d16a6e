"""Events of GitHub, Linear and Slack, by their own examples, start what an app declares."""

from __future__ import annotations

import json
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from contexten import ContextenApp, StartFlow
from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.triggers.model import TriggerEvent

from ..triggers.sources.vendors import SLACK_MENTION

if TYPE_CHECKING:
    from tests.unit.app.conftest import Http, Request, Wait

    from contexten.events import EventFunction

pytestmark = pytest.mark.anyio

SNIPPET = """
from contexten import ContextenApp

app = ContextenApp(name="workflow-app")
flow_manager = app.flow_manager
"""

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


async def test_the_flow_manager_of_an_app_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echo: dict[str, Any]
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_DATABASE", str(tmp_path / "flow.sqlite3"))
    names: dict[str, Any] = {}
    exec(SNIPPET, names)
    created = await names["flow_manager"].create_flow(name="Echo", workflow_def=echo)
    run = await names["flow_manager"].execute_flow(created["flow_id"])
    assert run["state"] == "completed"
    await names["app"].aclose()


def test_importing_contexten_imports_nothing_else() -> None:
    code = "import sys, contexten; print([name for name in sys.modules if name.startswith(('contexten.', 'pydantic'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


async def test_a_pull_request_starts_the_flow_that_a_function_names_once(
    app: ContextenApp, echo: dict[str, Any], github: Request, client: Http, output: Wait
) -> None:
    seen: list[TriggerEvent] = []

    @app.github.event("pull_request:opened")
    async def review(event: TriggerEvent) -> StartFlow:
        seen.append(event)
        return StartFlow(workflow_def=echo, inputs={"text": event.payload["pull_request"]["title"]}, priority="high")

    async with client(app) as http:
        first, again = await http.post(**github()), await http.post(**github())
        assert (first.status_code, again.status_code) == (202, 200)
        assert first.json() == again.json()
        assert await output(app) == {"text": "Update the README with new information."}
        (run,) = (await http.get("/api/runs")).json()["runs"]
        assert run["priority"] == 1
    assert [(event.kind, event.type, event.id) for event in seen] == [("github", "pull_request:opened", "72d3162e")]


async def test_an_issue_of_linear_starts_a_flow(
    app: ContextenApp, echo: dict[str, Any], linear: Request, client: Http, output: Wait
) -> None:
    @app.linear.event("Issue:create")
    async def triage(event: TriggerEvent) -> dict[str, Any]:
        return {"workflow_def": echo, "inputs": {"text": event.payload["data"]["title"]}}

    async with client(app) as http:
        assert (await http.post(**linear())).status_code == 202
        assert await output(app) == {"text": "Crash at start"}


async def test_a_mention_and_a_command_of_slack_start_flows(
    app: ContextenApp, echo: dict[str, Any], slack: Request, client: Http, output: Wait
) -> None:
    @app.slack.event("app_mention")
    async def mentioned(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": event.payload["event"]["text"]})

    @app.slack.command("/deploy")
    async def deploy(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": event.payload["text"]})

    async with client(app) as http:
        mention = await http.post(**slack(json.dumps(SLACK_MENTION).encode()))
        assert mention.status_code == 200
        command = await http.post(**slack(urlencode(COMMAND).encode()))
        assert (command.status_code, command.json()["response_type"]) == (200, "ephemeral")
        service = await app.flow_manager.service()
        by_type = {one.type: one.delivery_id for one in (await service.triggers.deliveries()).deliveries}
        assert await output(app, by_type["app_mention"]) == {"text": SLACK_MENTION["event"]["text"]}  # type: ignore[index]  # it is a mapping
        assert await output(app, by_type["/deploy"]) == {"text": "94070"}
        challenge = {"type": "url_verification", "challenge": "3eZbrw1a", "token": "x"}
        assert (await http.post(**slack(json.dumps(challenge).encode()))).json() == {"challenge": "3eZbrw1a"}


async def test_what_nobody_signed_or_declared_starts_nothing(
    app: ContextenApp, github: Request, client: Http, pull_request: dict[str, Any]
) -> None:
    app.github.on("pull_request:opened", flow_id="none")
    async with client(app) as http:
        forged = github()
        forged["content"] += b" "
        assert (await http.post(**forged)).status_code == 401
        ignored = await http.post(**github({**pull_request, "action": "closed"}))
        assert (ignored.status_code, "ignored" in ignored.json()) == (200, True)
        service = await app.flow_manager.service()
        assert (await service.triggers.deliveries()).deliveries == []


async def test_a_rule_starts_a_saved_flow_where_its_filter_holds(
    app: ContextenApp,
    echo: dict[str, Any],
    github: Request,
    client: Http,
    settled: Wait,
    output: Wait,
) -> None:
    app.github.on(
        "pull_request",
        flow_id="echo",
        inputs={"text": "#{{ event.payload.number }}"},
        filter="event.payload.pull_request.draft == false",
    )
    async with client(app) as http:
        await app.flow_manager.create_flow(workflow_def=echo, flow_id="echo")
        draft = {"action": "opened", "pull_request": {"draft": True}}
        held = (await http.post(**github(draft, delivery="draft"))).json()["delivery_id"]
        assert (await settled(app, held)).state == "filtered"
        started = (await http.post(**github())).json()["delivery_id"]
        assert await output(app, started) == {"text": "#2"}


async def test_a_rule_without_inputs_gives_the_flow_the_event_that_it_declares(
    app: ContextenApp, echo: dict[str, Any], github: Request, client: Http, output: Wait, pull_request: dict[str, Any]
) -> None:
    app.github.on("pull_request", flow_id="echo")
    async with client(app) as http:
        await app.flow_manager.create_flow(workflow_def=echo, flow_id="echo")
        await http.post(**github())
        assert (await output(app))["event"]["payload"] == pull_request


def test_a_rule_is_checked_where_it_is_declared(settings: FlowSettings, decide_nothing: EventFunction) -> None:
    with pytest.raises(InvalidArguments, match=r"event\.payload"):
        ContextenApp(settings=settings).github.on("push", flow_id="x", filter="payload.ref == 'main'")
    with pytest.raises(InvalidArguments, match="time zone"):
        ContextenApp(settings=settings).cron("0 9 * * *", timezone="Europe/Berlim")(decide_nothing)


@pytest.mark.parametrize("declare", ["github.event", "linear.event", "slack.event", "slack.command", "cron"])
def test_a_decorator_without_parentheses_is_refused_and_shows_how_it_is_written(
    settings: FlowSettings, decide_nothing: EventFunction, declare: str
) -> None:
    app = ContextenApp(settings=settings)
    decorate = attrgetter(declare)(app)
    with pytest.raises(TypeError, match=rf'Write @app\.{declare}\(".+"\) above _decide_nothing: .*not a function'):
        decorate(decide_nothing)
    assert app.sources == []


@pytest.mark.parametrize(
    ("declare", "given", "rule"),
    [
        ("github.event", "Push", "like 'pull_request:opened'"),
        ("github.event", "", "like 'pull_request:opened'"),
        ("linear.event", "Issue: create", "like 'Issue:create'"),
        ("slack.event", " app_mention", "like 'app_mention'"),
        ("slack.event", "/de ploy", "like 'app_mention'"),
        ("slack.command", "deploy", "begins with '/'"),
        ("slack.command", "/", "is written"),
    ],
)
def test_what_no_event_can_be_is_refused_with_the_name_of_the_function(
    settings: FlowSettings, decide_nothing: EventFunction, declare: str, given: str, rule: str
) -> None:
    app = ContextenApp(settings=settings)
    with pytest.raises(InvalidArguments, match=rule) as refused:
        attrgetter(declare)(app)(given)(decide_nothing)
    assert f"_decide_nothing would never be asked about {given!r}" in refused.value.message
    assert "pattern" not in str(refused.value.as_dict())
    assert app.sources == []


def test_a_rule_for_what_no_event_can_be_is_refused_with_its_flow(settings: FlowSettings) -> None:
    with pytest.raises(InvalidArguments, match=r"the flow 'build' would never be asked about 'Push'"):
        ContextenApp(settings=settings).github.on("Push", flow_id="build")


async def test_the_first_function_that_answers_a_flow_starts_it(
    app: ContextenApp, echo: dict[str, Any], decide_nothing: EventFunction, github: Request, client: Http, output: Wait
) -> None:
    app.github.event("pull_request:opened")(decide_nothing)

    @app.github.event("pull_request")
    async def second(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": "second"})

    @app.github.event("pull_request")
    async def third(event: TriggerEvent) -> StartFlow:
        raise AssertionError("it is not asked")

    async with client(app) as http:
        await http.post(**github())
        assert await output(app) == {"text": "second"}


async def test_an_answer_that_cannot_be_followed_is_told_with_the_delivery(
    app: ContextenApp, github: Request, client: Http, settled: Wait
) -> None:
    @app.github.event("pull_request")
    async def mistaken(event: TriggerEvent) -> dict[str, Any]:
        return {"flow": "echo"}

    async with client(app) as http:
        await http.post(**github())
        delivery = await settled(app)
    assert (delivery.state, delivery.error.code) == ("failed", "invalid_arguments")
    assert "'flow'" in delivery.error.message
    assert "'flow_id'" in delivery.error.next


@pytest.mark.parametrize(
    "answer",
    [{"flow_id": object()}, {"flow_id": 7}, StartFlow(flow_id=7), {"inputs": 5}],  # type: ignore[arg-type]  # it is wrong
)
async def test_an_answer_with_a_field_of_a_wrong_type_fails_its_delivery_and_says_so(
    app: ContextenApp, answer: Any, github: Request, client: Http, settled: Wait
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


async def test_a_function_need_not_be_async(
    app: ContextenApp, echo: dict[str, Any], github: Request, client: Http, output: Wait
) -> None:
    @app.github.event("pull_request")
    def review(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": event.type})

    async with client(app) as http:
        await http.post(**github())
        assert await output(app) == {"text": "pull_request:opened"}
