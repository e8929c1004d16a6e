"""Requests of GitHub, Linear, Slack and Standard Webhooks: the examples and test vectors of their documents."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

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
