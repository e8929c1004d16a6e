"""A request is taken where its sender signed it, just now, in a form that can be read; else refused."""

from __future__ import annotations

import hmac
import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.triggers.model import HookRequest, TriggerEvent

from .vendors import (
    FORM,
    FROM_ANYBODY,
    FROM_GITHUB,
    FROM_LINEAR,
    FROM_SLACK,
    GITHUB_DELIVERY,
    GITHUB_ISSUE,
    GITHUB_SECRET,
    GITHUB_VECTOR,
    LINEAR_COMMENT,
    SLACK_COMMAND,
    SLACK_VECTOR,
    WEBHOOK_BODY,
    WEBHOOK_VECTOR,
    Sender,
    every_sender,
    every_sender_that_signs_the_time,
    github,
    linear,
    slack,
    text,
    webhook,
)


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
