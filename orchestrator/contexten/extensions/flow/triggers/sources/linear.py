"""Linear's webhooks: signed with HMAC-SHA256 over the body, which says when it was sent."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from ...definition.values import as_timestamp
from ..configs import LinearConfig
from ..model import HookAnswer, HookRequest, TriggerEvent, TriggerKind
from .source import (
    Source,
    check_age,
    identifier,
    ignored,
    is_wanted,
    malformed,
    object_of,
    signature_of,
    text_of,
    wrong_signature,
)

_TOLERANCE = timedelta(minutes=1)  # what Linear asks of receivers


class LinearSource(Source[LinearConfig]):
    """See https://linear.app/developers/webhooks."""

    def receive(
        self, request: HookRequest, config: LinearConfig, secret: str, now: datetime
    ) -> TriggerEvent | HookAnswer:
        signature = signature_of(request, "linear-signature", secret)
        if not hmac.compare_digest(hmac.new(secret.encode(), request.body, "sha256").hexdigest(), signature):
            raise wrong_signature()
        payload = object_of(text_of(request.body))
        sent_at_ms = payload.get("webhookTimestamp")
        check_age(sent_at_ms / 1000 if isinstance(sent_at_ms, int | float) else None, now, _TOLERANCE)
        name, action = payload.get("type"), payload.get("action")
        if not isinstance(name, str):
            raise malformed("it has no type")
        event_type = f"{name}:{action}" if isinstance(action, str) else name
        if not is_wanted(event_type, config.events):
            return ignored(f"This trigger does not take {event_type}.")
        return TriggerEvent(
            kind=TriggerKind.LINEAR,
            type=event_type,
            id=identifier(request, "linear-delivery"),
            payload=payload,
            received_at=as_timestamp(now),
        )
