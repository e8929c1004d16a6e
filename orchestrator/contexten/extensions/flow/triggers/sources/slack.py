"""A Slack app's requests: slash commands (forms), events (JSON) and the check of the URL.

Slack signs the time and the body, and waits three seconds for an answer. It sends an event again, with the same
`event_id`, where none came; a command it never repeats.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from ...definition.values import as_timestamp
from ..configs import SlackConfig
from ..model import HookAnswer, HookRequest, TriggerEvent, TriggerKind
from .source import Source, check_age, ignored, is_wanted, malformed, object_of, signature_of, text_of, wrong_signature

_TOLERANCE = timedelta(minutes=5)
_MAX_FIELDS = 100


class SlackSource(Source[SlackConfig]):
    """See https://docs.slack.dev/authentication/verifying-requests-from-slack."""

    def receive(
        self, request: HookRequest, config: SlackConfig, secret: str, now: datetime
    ) -> TriggerEvent | HookAnswer:
        signature = _verify(request, secret, now)
        text = text_of(request.body)
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return _command(_form(text), config, signature, now)
        return _event(object_of(text), config, now)

    def accepted(self, event: TriggerEvent, config: SlackConfig, delivery_id: str, *, is_new: bool) -> HookAnswer:
        if event.type.startswith("/"):
            return _message(f"`{event.type}` was taken: delivery {delivery_id}.", config.response)
        return HookAnswer(status=200, body={"delivery_id": delivery_id})


def _verify(request: HookRequest, secret: str, now: datetime) -> str:
    from slack_sdk.signature import Clock, SignatureVerifier

    class _Now(Clock):
        def now(self) -> float:
            return now.timestamp()

    signature = signature_of(request, "x-slack-signature", secret)
    sent_at_s = request.headers.get("x-slack-request-timestamp", "")
    check_age(sent_at_s if sent_at_s.isdecimal() else None, now, _TOLERANCE)
    text_of(request.body)  # the library signs text
    if not SignatureVerifier(secret, clock=_Now()).is_valid(request.body, sent_at_s, signature):
        raise wrong_signature()
    return signature


def _form(text: str) -> dict[str, str]:
    try:
        fields = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        raise malformed("it is no form in UTF-8") from None
    return dict(fields)


def _command(form: dict[str, str], config: SlackConfig, signature: str, now: datetime) -> TriggerEvent | HookAnswer:
    if form.get("ssl_check") == "1":
        return HookAnswer(status=200)
    if "payload" in form:
        return _message("Buttons, menus and forms start nothing here; use a command.")
    command = form.get("command", "")
    if not command.startswith("/"):
        raise malformed("it is neither a command nor an event")
    if not _takes(command, config.commands, config):
        known = ", ".join(f"`{name}`" for name in config.commands) or "events only"
        return _message(f"This command starts nothing here. The trigger takes {known}.")
    form.pop("token", None)  # a secret of old, by which receivers knew Slack before it signed
    return TriggerEvent(
        kind=TriggerKind.SLACK,
        type=command,
        id=form.get("trigger_id") or signature,
        payload=form,
        received_at=as_timestamp(now),
    )


def _event(payload: dict[str, Any], config: SlackConfig, now: datetime) -> TriggerEvent | HookAnswer:
    if payload.get("type") == "url_verification":
        return HookAnswer(status=200, body={"challenge": str(payload.get("challenge", ""))})
    event, event_id = payload.get("event"), payload.get("event_id")
    if payload.get("type") != "event_callback" or not isinstance(event, dict) or not isinstance(event_id, str):
        return ignored("This trigger takes commands and events.")
    subtype = event.get("subtype")
    event_type = str(event.get("type", "")) + (f":{subtype}" if isinstance(subtype, str) else "")
    if not _takes(event_type, config.events, config):
        return ignored(f"This trigger does not take {event_type}.")
    payload.pop("token", None)
    return TriggerEvent(
        kind=TriggerKind.SLACK,
        type=event_type,
        id=event_id,
        payload=payload,
        received_at=as_timestamp(now),
    )


def _takes(event_type: str, wanted: tuple[str, ...], config: SlackConfig) -> bool:
    """A trigger that names only commands takes no events, and the other way round."""
    return not (config.commands or config.events) or (bool(wanted) and is_wanted(event_type, wanted))


def _message(text: str, response_type: str = "ephemeral") -> HookAnswer:
    return HookAnswer(status=200, body={"response_type": response_type, "text": text})
