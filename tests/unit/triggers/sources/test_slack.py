"""Slack's ways: its challenge, commands, events, subtypes and buttons."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from contexten.extensions.flow.triggers.configs import (
    SlackConfig,
)
from contexten.extensions.flow.triggers.model import HookAnswer, TriggerEvent
from contexten.extensions.flow.triggers.sources import SOURCES

from .vendors import FROM_SLACK, SLACK, SLACK_CHALLENGE, SLACK_COMMAND, SLACK_MENTION, slack, text


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
