"""Messages of Slack: notifications by an incoming webhook, and answers to the commands that started runs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from slack_sdk.signature import SignatureVerifier

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.notifications.messages import slack_body
from contexten.extensions.flow.notifications.post import Answer, Post
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.triggers.model import HookRequest
from contexten.extensions.flow.views import Progress, RunError, RunView

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[str]]
URL = "https://hooks.slack.com/services/T000/B000/hush"
RESPONSE_URL = "https://hooks.slack.com/commands/T000/1/hush"
SIGNING = "8f742231b10e8888abcd99yyyzzz85a5"


@dataclass
class Slack:
    """Stands where Slack stands: it answers with HTTPS at its own name only."""

    posts: list[tuple[str, Any, Mapping[str, str]]] = field(default_factory=list)

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        self.posts.append((url, json.loads(body), headers))
        return Answer(status=200)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Slack:
    found = Slack()

    async def send(_: Post, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        return await found.send(url, body, headers)

    monkeypatch.setattr(Post, "send", send)
    monkeypatch.setenv("SLACK_URL", URL)
    monkeypatch.setenv("SLACK_SIGNING", SIGNING)
    return found


def granted(settings: FlowSettings, **grants: Any) -> FlowSettings:
    secrets = (SecretGrant(name="SLACK_URL", **grants), SecretGrant(name="SLACK_SIGNING"))
    return settings.model_copy(update={"secrets": secrets})


def failed_run(**fields: Any) -> RunView:
    known: dict[str, Any] = {
        "run_id": "run_1",
        "flow_id": "flow",
        "name": "Daily report",
        "version": 1,
        "state": "failed",
        "progress": Progress(completed=1, total=2),
        "cursor": "x.1",
        "next_poll_s": 0,
        "duration_s": 1.5,
        "error": RunError(kind="network", message="no route", task="fetch"),
    }
    return RunView(**(known | fields))


def test_a_message_says_which_run_failed_where_and_why() -> None:
    message = slack_body("run.failed", failed_run())
    section, context = message["blocks"]
    assert message["text"] == "✗ *Daily report* failed"
    assert section["text"]["text"] == "✗ *Daily report* failed\nnetwork in task fetch: no route"
    assert context["elements"][0]["text"] == "flow `flow` · run `run_1` · 1.5 s"


def test_nothing_that_others_wrote_calls_anybody_or_makes_a_link() -> None:
    hostile = "<!channel> <https://evil.example|click> & <@U1>"
    run = failed_run(name=hostile, error=RunError(kind="x<y", message=hostile * 50, task=hostile), reason=hostile)
    for message in (
        slack_body("run.failed", run),
        slack_body("run.cancelled", run),
        slack_body("run.completed", run, json.dumps({"text": hostile + "```"})),
    ):
        text = json.dumps(message, ensure_ascii=False)
        assert "<" not in text
        assert ">" not in text
        assert "&lt;!channel&gt;" in text
        assert all(len(block["text"]["text"]) <= 3000 for block in message["blocks"] if block["type"] == "section")


def test_an_output_cannot_leave_its_block_of_code() -> None:
    text = slack_body("run.completed", failed_run(state="completed"), '"```*bold*"')["blocks"][0]["text"]["text"]
    assert text.count("```") == 2


async def test_a_notification_goes_to_the_address_that_a_secret_holds(
    settings: FlowSettings, slack: Slack, run: Run, entries: Any
) -> None:
    async with FlowService(granted(settings, hosts=("hooks.slack.com",))) as flows:
        heard = entries(flows)
        made = await flows.notifications.create(kind="slack", secret="SLACK_URL")
        await run(flows, fails=True)
        await heard.have(1, "notification.sent")
        assert (await flows.notifications.test(made.notification_id)).ok
        shown = json.dumps([made.data(), [event.data() for event in await flows.events(limit=1000)]])
    (url, message, headers), (_, trial, _) = slack.posts
    assert url == URL
    assert "failed" in message["text"]
    assert "webhook-signature" not in headers
    assert trial["text"].startswith("This is a test")
    assert "hush" not in shown


async def test_an_address_is_not_used_where_its_secret_is_granted_to_others(
    settings: FlowSettings, slack: Slack, run: Run, entries: Any
) -> None:
    async with FlowService(granted(settings)) as flows:
        made = await flows.notifications.create(kind="slack", secret="SLACK_URL", events=["run.completed"])
    async with FlowService(granted(settings, tools=("shell",))) as flows:
        heard = entries(flows)
        await run(flows)
        await heard.have(1, "notification.retrying")
        [dispatch] = (await flows.notifications.dispatches(made.notification_id)).dispatches
        assert (await flows.notifications.test(made.notification_id)).ok is False
    assert "does not grant" in (dispatch.error or "") or "do not grant" in (dispatch.error or "")
    assert slack.posts == []


async def command(flows: FlowService, trigger_id: str, *, response_url: str = RESPONSE_URL, nr: int = 1) -> None:
    """Somebody gives the slash command."""
    form = {"command": "/deploy", "text": "main", "response_url": response_url, "trigger_id": f"13345224609.{nr}"}
    body = urlencode(form)
    sent_at = str(int(flows.clock.timestamp()))
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": sent_at,
        "x-slack-signature": SignatureVerifier(SIGNING).generate_signature(timestamp=sent_at, body=body) or "",
    }
    answer = await flows.triggers.receive(trigger_id, HookRequest(headers=headers, body=body.encode()))
    assert answer.status == 200, answer


GREETING = {
    "name": "Greeting",
    "inputs": {"type": "object", "required": ["who"], "properties": {"who": {"type": "string"}}},
    "output": "{{ 'hello ' + inputs.who }}",
    "stages": [
        {
            "name": "only",
            "tasks": [
                {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": [1], "query": "@"}}
            ],
        }
    ],
}


async def listening(flows: FlowService, **inputs: Any) -> str:
    await flows.create_flow(flow_id="greet", workflow_def=GREETING)
    made = await flows.triggers.create(
        flow_id="greet",
        kind="slack",
        config={"secret": "SLACK_SIGNING", "commands": ["/deploy"], "response": "in_channel"},
        inputs=inputs or {"who": "{{ event.payload.text }}"},
        actor=PYTHON,
    )
    return made.trigger_id


async def test_the_end_of_a_run_that_a_command_started_is_told_where_slack_wants_it(
    settings: FlowSettings, slack: Slack, run: Run, entries: Any
) -> None:
    async with FlowService(granted(settings)) as flows:
        trigger_id = await listening(flows)
        heard = entries(flows)
        await run(flows)  # nobody's command
        await command(flows, trigger_id)
        await heard.have(1, "notification.sent")
        await command(flows, trigger_id)  # sent again: it starts nothing, and nothing is told twice
        await command(flows, trigger_id, nr=2)
        await heard.have(2, "notification.sent")
        [_, dispatch] = (await flows.notifications.dispatches()).dispatches
        journal = json.dumps([event.data() for event in await flows.events(limit=1000)])
    url, message, _ = slack.posts[0]
    assert url == RESPONSE_URL
    assert (message["response_type"], message["replace_original"]) == ("in_channel", False)
    assert message["text"] == "✓ *Greeting* completed"
    assert '"hello main"' in message["blocks"][0]["text"]["text"]
    assert (dispatch.kind, dispatch.notification_id, dispatch.state) == ("reply", None, "sent")
    assert len(slack.posts) == 2
    assert RESPONSE_URL not in journal + dispatch.model_dump_json()


async def test_an_answer_goes_to_no_other_place_than_slack(
    settings: FlowSettings, slack: Slack, entries: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with FlowService(granted(settings)) as flows:
        trigger_id = await listening(flows)
        heard = entries(flows)
        for number, url in enumerate(
            ("https://evil.example/x", "http://hooks.slack.com/x", "https://hooks.slack.com.evil/")
        ):
            await command(flows, trigger_id, response_url=url, nr=number)
        await command(flows, trigger_id, nr=9)
        await heard.have(1, "notification.sent")
        await heard.have(3, "notification.dead")
        dead = (await flows.notifications.dispatches(state="dead")).dispatches
    assert {(dispatch.attempts, dispatch.error) for dispatch in dead} == {
        (1, "the command's response_url is not Slack's: it begins with no https://hooks.slack.com/")
    }
    assert "is not Slack's" in caplog.text
    assert "evil" not in caplog.text
    assert [url for url, _, _ in slack.posts] == [RESPONSE_URL]
