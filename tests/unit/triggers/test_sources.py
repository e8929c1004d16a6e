"""Hooks of GitHub, Linear, Slack and Standard Webhooks: with the examples and test vectors of their documents."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.triggers.configs import (
    GithubConfig,
    LinearConfig,
    SlackConfig,
    TriggerConfig,
    WebhookConfig,
)
from contexten.extensions.flow.triggers.model import HookAnswer, HookRequest, TriggerEvent, TriggerKind
from contexten.extensions.flow.triggers.sources import SOURCES, HookRefused

GITHUB, LINEAR, SLACK, WEBHOOK = TriggerKind.GITHUB, TriggerKind.LINEAR, TriggerKind.SLACK, TriggerKind.WEBHOOK

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries and .../webhook-events-and-payloads
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_VECTOR = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
GITHUB_DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
GITHUB_ISSUE = {
    "action": "opened",
    "issue": {"url": "https://api.github.com/repos/octocat/Hello-World/issues/1347", "number": 1347},
    "repository": {"id": 1296269, "full_name": "octocat/Hello-World", "owner": {"login": "octocat", "id": 1}},
    "sender": {"login": "octocat", "id": 1},
}

# https://linear.app/developers/webhooks
LINEAR_SENT_MS = 1676056940508
LINEAR_COMMENT = {
    "action": "create",
    "data": {
        "id": "2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9",
        "createdAt": "2020-01-23T12:53:18.084Z",
        "updatedAt": "2020-01-23T12:53:18.084Z",
        "archivedAt": None,
        "body": "Indeed, I think this is definitely an improvement over the previous version.",
        "edited": False,
        "issueId": "539068e2-ae88-4d09-bd75-22eb4a59612f",
        "userId": "aacdca22-6266-4c0a-ab3c-8fa70a26765c",
    },
    "type": "Comment",
    "url": "https://linear.app/issue/LIN-1778/foo-bar#comment-77217de3-fb52-4dad-bb9a-b356beb93de8",
    "createdAt": "2020-01-23T12:53:18.084Z",
    "organizationId": "dc844923-f9a4-40a3-825c-dea7747e57d6",
    "webhookTimestamp": LINEAR_SENT_MS,
    "webhookId": "000042e3-d123-4980-b49f-8e140eef9329",
}

# https://docs.slack.dev/authentication/verifying-requests-from-slack
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_SENT_S = 1531420618
SLACK_VECTOR = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
SLACK_COMMAND = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
# https://docs.slack.dev/apis/events-api and https://docs.slack.dev/reference/events/app_mention
SLACK_MENTION = {
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
SLACK_CHALLENGE = {
    "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
    "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
    "type": "url_verification",
}

# https://github.com/standard-webhooks/standard-webhooks
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WEBHOOK_VECTOR = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
WEBHOOK_SENT_S = 1614265330
WEBHOOK_BODY = b'{"test": 2432232314}'

FORM = "application/x-www-form-urlencoded"


def github(body: bytes, **headers: str) -> HookRequest:
    signature = "sha256=" + hmac.new(GITHUB_SECRET.encode(), body, "sha256").hexdigest()
    return _request(
        body,
        headers,
        {
            "x-hub-signature-256": signature,
            "x-github-event": "issues",
            "x-github-delivery": GITHUB_DELIVERY,
            "content-type": "application/json",
        },
    )


def linear(body: bytes, **headers: str) -> HookRequest:
    signature = hmac.new(b"lin_wh_secret", body, "sha256").hexdigest()
    return _request(
        body, headers, {"linear-signature": signature, "linear-event": "Comment", "linear-delivery": "234d1a4e"}
    )


def slack(body: bytes, **headers: str) -> HookRequest:
    sent = headers.get("x_slack_request_timestamp", str(SLACK_SENT_S))
    signature = "v0=" + hmac.new(SLACK_SECRET.encode(), f"v0:{sent}:".encode() + body, "sha256").hexdigest()
    content_type = "application/json" if body.startswith(b"{") else FORM
    return _request(
        body,
        headers,
        {"x-slack-signature": signature, "x-slack-request-timestamp": sent, "content-type": content_type},
    )


def webhook(body: bytes, **headers: str) -> HookRequest:
    from standardwebhooks import Webhook

    sent = datetime.fromtimestamp(WEBHOOK_SENT_S, UTC)
    signature = Webhook(WEBHOOK_SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", sent, body.decode("utf-8", "replace"))
    return _request(
        body,
        headers,
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": str(WEBHOOK_SENT_S),
            "webhook-signature": signature,
        },
    )


def _request(body: bytes, given: Mapping[str, str], usual: Mapping[str, str]) -> HookRequest:
    headers = {**usual, **{name.replace("_", "-"): value for name, value in given.items()}}
    return HookRequest(headers={name: value for name, value in headers.items() if value}, body=body)


@dataclass(frozen=True)
class Sender:
    """One vendor, with a request as it sends them."""

    kind: TriggerKind
    config: TriggerConfig
    secret: str
    sign: Callable[..., HookRequest]
    body: bytes
    signature: str
    now: datetime

    def receive(self, request: HookRequest, **options: Any) -> TriggerEvent | HookAnswer:
        config = self.config.model_copy(update=options.pop("config", {}))
        given = {"secret": self.secret, "now": self.now, **options}
        return SOURCES[self.kind].receive(request, config, given["secret"], given["now"])

    def refusal(self, request: HookRequest, **options: Any) -> HookRefused:
        with pytest.raises(HookRefused) as refused:
            self.receive(request, **options)
        return refused.value

    def event(self, request: HookRequest, **options: Any) -> TriggerEvent:
        event = self.receive(request, **options)
        assert isinstance(event, TriggerEvent)
        return event

    def answer(self, request: HookRequest, **options: Any) -> HookAnswer:
        answer = self.receive(request, **options)
        assert isinstance(answer, HookAnswer)
        return answer


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def text(data: Any) -> bytes:
    return json.dumps(data).encode()


FROM_GITHUB = Sender(
    GITHUB, GithubConfig(), GITHUB_SECRET, github, text(GITHUB_ISSUE), "x-hub-signature-256", at(1774000000)
)
FROM_LINEAR = Sender(
    LINEAR,
    LinearConfig(secret="LINEAR"),
    "lin_wh_secret",
    linear,
    text(LINEAR_COMMENT),
    "linear-signature",
    at(LINEAR_SENT_MS / 1000 + 2),
)
FROM_SLACK = Sender(
    SLACK, SlackConfig(secret="SLACK"), SLACK_SECRET, slack, SLACK_COMMAND, "x-slack-signature", at(SLACK_SENT_S + 1)
)
FROM_ANYBODY = Sender(
    WEBHOOK, WebhookConfig(), WEBHOOK_SECRET, webhook, WEBHOOK_BODY, "webhook-signature", at(WEBHOOK_SENT_S + 1)
)
SENDERS = [FROM_GITHUB, FROM_LINEAR, FROM_SLACK, FROM_ANYBODY]
DATED = [FROM_LINEAR, FROM_SLACK, FROM_ANYBODY]

every_sender = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.kind)
every_sender_that_signs_the_time = pytest.mark.parametrize("sender", DATED, ids=lambda sender: sender.kind)


# What the documents say.


def test_githubs_own_test_vector_is_genuine() -> None:
    request = github(b"Hello, World!", x_hub_signature_256=GITHUB_VECTOR)
    assert FROM_GITHUB.refusal(request).code == "malformed_payload"  # it is genuine, and no JSON


def test_slacks_own_example_is_taken() -> None:
    event = FROM_SLACK.event(slack(SLACK_COMMAND, x_slack_signature=SLACK_VECTOR))
    assert event.kind == "slack"
    assert event.type == "/webhook-collect"
    assert event.id == "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    assert event.payload["user_name"] == "roadrunner"
    assert event.payload["text"] == ""
    assert event.received_at == "2018-07-12T18:36:59Z"


def test_the_test_vector_of_standard_webhooks_is_taken() -> None:
    event = FROM_ANYBODY.event(webhook(WEBHOOK_BODY, webhook_signature=WEBHOOK_VECTOR))
    assert (event.type, event.id) == ("webhook", "msg_p5jXN8AQM9LWM0D4loKWxJek")
    assert event.payload == {"test": 2432232314}


def test_linears_example_is_taken() -> None:
    event = FROM_LINEAR.event(linear(text(LINEAR_COMMENT)))
    assert (event.type, event.id) == ("Comment:create", "234d1a4e")
    assert event.payload == LINEAR_COMMENT


def test_githubs_example_is_taken_as_json_and_as_a_form() -> None:
    form = urlencode({"payload": json.dumps(GITHUB_ISSUE)}).encode()
    for request in (github(text(GITHUB_ISSUE)), github(form, content_type=FORM)):
        event = FROM_GITHUB.event(request)
        assert (event.type, event.id) == ("issues:opened", GITHUB_DELIVERY)
        assert event.payload == GITHUB_ISSUE


# What nobody vouches for.


@every_sender
def test_a_request_without_a_signature_is_refused(sender: Sender) -> None:
    refusal = sender.refusal(sender.sign(sender.body, **{sender.signature.replace("-", "_"): ""}))
    assert (refusal.status, refusal.code) == (401, "missing_signature")
    assert sender.signature in refusal.message


@every_sender
def test_a_request_signed_with_another_secret_is_refused(sender: Sender) -> None:
    refusal = sender.refusal(sender.sign(sender.body), secret="whsec_" + "b3RoZXI=" * 4)
    assert (refusal.status, refusal.code) == (401, "wrong_signature")


@every_sender
def test_a_body_that_was_changed_on_the_way_is_refused(sender: Sender) -> None:
    request = sender.sign(sender.body)
    changed = HookRequest(headers=request.headers, body=sender.body.replace(b"1", b"2", 1))
    assert sender.refusal(changed).code == "wrong_signature"


@every_sender
@pytest.mark.parametrize("signature", ["", " ", "sha256=", "v0=", "v1,", "v1", "ünïcödé", "v1,\x00", "a" * 10_000])
def test_no_signature_breaks_the_check(sender: Sender, signature: str) -> None:
    refusal = sender.refusal(sender.sign(sender.body, **{sender.signature.replace("-", "_"): signature}))
    assert refusal.status == 401


@every_sender
@given(body=st.binary(max_size=200), signature=st.text(max_size=80))
def test_nothing_that_is_not_signed_gets_through(sender: Sender, body: bytes, signature: str) -> None:
    usual = sender.sign(sender.body).headers
    request = HookRequest(headers={**usual, sender.signature: signature}, body=body)
    assert sender.refusal(request).status in {400, 401}


@every_sender
def test_without_a_secret_nothing_is_genuine(sender: Sender) -> None:
    request = sender.sign(sender.body)
    assert sender.refusal(request, secret="").status == 503


def test_github_signatures_of_sha1_are_refused() -> None:
    sha1 = "sha1=" + hmac.new(GITHUB_SECRET.encode(), FROM_GITHUB.body, "sha1").hexdigest()
    assert FROM_GITHUB.refusal(github(FROM_GITHUB.body, x_hub_signature_256=sha1)).code == "wrong_signature"
    only_sha1 = github(FROM_GITHUB.body, x_hub_signature_256="", x_hub_signature=sha1)
    refusal = FROM_GITHUB.refusal(only_sha1)
    assert (refusal.status, refusal.code) == (401, "missing_signature")
    assert "SHA-1 only" in refusal.message


def test_a_body_that_github_would_not_send_is_told_to_be_json() -> None:
    bare = text(GITHUB_ISSUE)
    for content_type in (FORM, "text/plain"):
        refusal = FROM_GITHUB.refusal(github(bare, content_type=content_type))
        assert refusal.status == 400
        assert "set the content type to application/json" in refusal.message


@every_sender_that_signs_the_time
@pytest.mark.parametrize("away", [timedelta(minutes=6), -timedelta(minutes=6), timedelta(days=400)])
def test_a_recorded_request_is_refused_when_it_is_old(sender: Sender, away: timedelta) -> None:
    request = sender.sign(sender.body)
    assert isinstance(sender.receive(request), TriggerEvent)
    assert sender.refusal(request, now=sender.now + away).code == "stale_request"


@pytest.mark.parametrize("sent", ["", "soon", "-1", "nan", "inf", "1e9", "9" * 400, "1531420618.5"])
def test_a_time_that_is_none_is_refused(sent: str) -> None:
    assert FROM_SLACK.refusal(slack(SLACK_COMMAND, x_slack_request_timestamp=sent)).status == 401
    assert FROM_ANYBODY.refusal(webhook(WEBHOOK_BODY, webhook_timestamp=sent)).status == 401


@pytest.mark.parametrize("sent", [None, "1676056940508", True, [], 10**400, 1e300])
def test_a_time_in_a_body_that_is_none_is_refused(sent: Any) -> None:
    body = text({**LINEAR_COMMENT, "webhookTimestamp": sent})
    assert FROM_LINEAR.refusal(linear(body)).status == 401


def test_a_message_signed_with_the_old_and_the_new_secret_is_taken() -> None:
    both = f"v1a,bm9uZQ== v1,bm9uZQ== {WEBHOOK_VECTOR}"
    assert FROM_ANYBODY.event(webhook(WEBHOOK_BODY, webhook_signature=both)).payload == {"test": 2432232314}


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a", "!!!", "whsec_===="])
def test_a_secret_that_is_none_takes_nothing(secret: str) -> None:
    assert FROM_ANYBODY.refusal(webhook(WEBHOOK_BODY), secret=secret).status == 503


# What is genuine and cannot be read.


@every_sender
@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b"{",
        b"[" * 100_000,
        b'{"a": "\\ud800"}',
        b"",
    ],
    ids=["not UTF-8", "NaN", "cut off", "endless", "half a character", "empty"],
)
def test_a_body_that_cannot_be_kept_is_refused_without_harm(sender: Sender, body: bytes) -> None:
    refusal = sender.refusal(sender.sign(body, content_type="application/json"))
    assert (refusal.status, refusal.code) == (400, "malformed_payload")


@pytest.mark.parametrize("sender", [FROM_GITHUB, FROM_LINEAR, FROM_SLACK], ids=lambda sender: sender.kind)
def test_where_an_object_is_expected_nothing_else_will_do(sender: Sender) -> None:
    assert sender.refusal(sender.sign(b"[1]", content_type="application/json")).code == "malformed_payload"


@pytest.mark.parametrize("form", [b"command=%ff", b"a=1&&b", b"x" * 5000, b"&".join([b"a=1"] * 200), b"payload=%7B"])
def test_a_form_that_is_none_is_refused(form: bytes) -> None:
    assert FROM_GITHUB.refusal(github(form, content_type=FORM)).status == 400
    if not form.startswith(b"payload"):
        assert FROM_SLACK.refusal(slack(form)).status == 400


@pytest.mark.parametrize("name", ["x_github_event", "x_github_delivery"])
def test_a_github_request_that_does_not_say_what_it_is_is_refused(name: str) -> None:
    for value in ("", "x" * 300):
        assert FROM_GITHUB.refusal(github(FROM_GITHUB.body, **{name: value})).status == 400


# What starts nothing.


def test_githubs_ping_is_answered() -> None:
    ping = text({"zen": "Design for failure.", "hook_id": 1, "hook": {}})
    answer = FROM_GITHUB.answer(github(ping, x_github_event="ping"))
    assert answer.status == 200
    assert "pong" in answer.body


@pytest.mark.parametrize(
    ("config", "starts"),
    [
        ({"events": ("issues",)}, True),
        ({"events": ("issues:opened",)}, True),
        ({"events": ("push", "issues:closed")}, False),
        ({"repositories": ("octocat/hello-world",)}, True),
        ({"repositories": ("octocat/*",)}, True),
        ({"repositories": ("octo/*", "octocat/Hello")}, False),
    ],
)
def test_a_github_trigger_takes_what_it_asked_for(config: dict[str, Any], starts: bool) -> None:
    received = FROM_GITHUB.receive(github(FROM_GITHUB.body), config=config)
    assert isinstance(received, TriggerEvent) is starts
    if isinstance(received, HookAnswer):
        assert received.status == 200
        assert "does not take" in received.body["ignored"]


def test_an_event_without_a_repository_is_none_of_a_named_one() -> None:
    body = text({"action": "member_added", "organization": {"login": "octocat"}})
    request = github(body, x_github_event="organization")
    assert isinstance(FROM_GITHUB.receive(request, config={"repositories": ("octocat/*",)}), HookAnswer)
    assert FROM_GITHUB.event(request).type == "organization:member_added"


def test_an_event_that_nobody_has_heard_of_is_an_event() -> None:
    assert FROM_GITHUB.event(github(b"{}", x_github_event="brand_new")).type == "brand_new"
    assert FROM_LINEAR.event(linear(text({"type": "New", "webhookTimestamp": LINEAR_SENT_MS}))).type == "New"


def test_linear_and_webhook_triggers_take_what_they_asked_for() -> None:
    for wanted, starts in ((("Comment",), True), (("Comment:create",), True), (("Issue", "Comment:remove"), False)):
        received = FROM_LINEAR.receive(linear(FROM_LINEAR.body), config={"events": wanted})
        assert isinstance(received, TriggerEvent) is starts
    paid = text({"type": "invoice.paid", "timestamp": "2022-11-03T20:26:10.344522Z", "data": {"id": "1f81eb52"}})
    assert FROM_ANYBODY.event(webhook(paid), config={"types": ("invoice.paid",)}).type == "invoice.paid"
    assert FROM_ANYBODY.answer(webhook(paid), config={"types": ("user.created",)}).status == 200


# Slack's ways.


def test_slack_is_shown_that_the_url_is_ours_once_it_is_known_to_be_slack() -> None:
    answer = FROM_SLACK.answer(slack(text(SLACK_CHALLENGE)))
    assert (answer.status, answer.body) == (200, {"challenge": SLACK_CHALLENGE["challenge"]})
    assert FROM_SLACK.refusal(slack(text(SLACK_CHALLENGE), x_slack_signature="v0=0")).status == 401


def test_an_event_that_slack_sends_again_has_the_id_it_had() -> None:
    first = FROM_SLACK.event(slack(text(SLACK_MENTION)))
    again = FROM_SLACK.event(slack(text(SLACK_MENTION), x_slack_retry_num="1", x_slack_retry_reason="http_timeout"))
    assert first.type == "app_mention"
    assert first.id == again.id == "Ev123ABC456"
    answer = SOURCES[SLACK].accepted(again, FROM_SLACK.config, "dlv_1", is_new=False)
    assert answer.status == 200


def test_slacks_old_token_is_not_recorded() -> None:
    assert "token" not in FROM_SLACK.event(slack(SLACK_COMMAND)).payload
    assert "token" not in FROM_SLACK.event(slack(text(SLACK_MENTION))).payload


def test_a_command_is_answered_with_a_message() -> None:
    event = FROM_SLACK.event(slack(SLACK_COMMAND))
    for response in ("ephemeral", "in_channel"):
        config = SlackConfig(secret="SLACK", response=response)
        answer = SOURCES[SLACK].accepted(event, config, "dlv_1", is_new=True)
        assert answer.status == 200
        assert answer.body == {"response_type": response, "text": "`/webhook-collect` was taken: delivery dlv_1."}


@pytest.mark.parametrize(
    ("config", "command", "mention"),
    [
        ({}, True, True),
        ({"commands": ("/webhook-collect",)}, True, False),
        ({"commands": ("/deploy",)}, False, False),
        ({"events": ("app_mention",)}, False, True),
        ({"events": ("message",), "commands": ("/webhook-collect",)}, True, False),
    ],
)
def test_a_slack_trigger_takes_what_it_asked_for(config: dict[str, Any], command: bool, mention: bool) -> None:
    assert isinstance(FROM_SLACK.receive(slack(SLACK_COMMAND), config=config), TriggerEvent) is command
    assert isinstance(FROM_SLACK.receive(slack(text(SLACK_MENTION)), config=config), TriggerEvent) is mention


def test_a_command_that_is_not_taken_is_answered_to_who_gave_it() -> None:
    answer = FROM_SLACK.answer(slack(SLACK_COMMAND), config={"commands": ("/deploy",)})
    assert answer.status == 200
    assert answer.body["response_type"] == "ephemeral"
    assert "`/deploy`" in answer.body["text"]


def test_a_subtype_of_an_event_is_named_with_it() -> None:
    joined = {**SLACK_MENTION, "event": {"type": "message", "subtype": "channel_join"}}
    for wanted in ("message", "message:channel_join"):
        assert FROM_SLACK.event(slack(text(joined)), config={"events": (wanted,)}).type == "message:channel_join"
    assert isinstance(FROM_SLACK.receive(slack(text(joined)), config={"events": ("message:me",)}), HookAnswer)


def test_buttons_checks_and_rate_limits_start_nothing() -> None:
    button = urlencode({"payload": json.dumps({"type": "block_actions", "trigger_id": "1.2.a"})}).encode()
    assert "start nothing" in FROM_SLACK.answer(slack(button)).body["text"]
    assert FROM_SLACK.answer(slack(b"ssl_check=1&token=x")).status == 200
    assert FROM_SLACK.answer(slack(text({"type": "app_rate_limited", "minute_rate_limited": 1518467820}))).status == 200
    assert FROM_SLACK.refusal(slack(b"a=1")).status == 400


@pytest.mark.parametrize("sender", [FROM_GITHUB, FROM_LINEAR, FROM_ANYBODY], ids=lambda sender: sender.kind)
def test_a_recorded_event_is_answered_with_its_delivery(sender: Sender) -> None:
    event, source = sender.event(sender.sign(sender.body)), SOURCES[sender.kind]
    first = source.accepted(event, sender.config, "dlv_1", is_new=True)
    again = source.accepted(event, sender.config, "dlv_1", is_new=False)
    assert (first.status, again.status) == (202, 200)
    assert first.body == again.body == {"delivery_id": "dlv_1"}
