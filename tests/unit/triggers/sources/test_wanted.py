"""A trigger takes what it asked for; the rest starts nothing, and is answered."""

from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.triggers.model import HookAnswer, TriggerEvent
from contexten.extensions.flow.triggers.sources import SOURCES

from .vendors import FROM_ANYBODY, FROM_GITHUB, FROM_LINEAR, LINEAR_SENT_MS, Sender, github, linear, text, webhook


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


@pytest.mark.parametrize("sender", [FROM_GITHUB, FROM_LINEAR, FROM_ANYBODY], ids=lambda sender: sender.kind)
def test_a_recorded_event_is_answered_with_its_delivery(sender: Sender) -> None:
    event, source = sender.event(sender.sign(sender.body)), SOURCES[sender.kind]
    first = source.accepted(event, sender.config, "dlv_1", is_new=True)
    again = source.accepted(event, sender.config, "dlv_1", is_new=False)
    assert (first.status, again.status) == (202, 200)
    assert first.body == again.body == {"delivery_id": "dlv_1"}
