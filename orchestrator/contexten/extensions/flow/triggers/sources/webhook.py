"""Webhooks of any sender that keeps to Standard Webhooks: id, time and body are signed together."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta

from ...definition.values import as_timestamp
from ..configs import WebhookConfig
from ..model import HookAnswer, HookRequest, TriggerEvent, TriggerKind
from .source import (
    HookRefused,
    Source,
    check_age,
    identifier,
    ignored,
    json_of,
    signature_of,
    text_of,
    wrong_signature,
)

_TOLERANCE = timedelta(minutes=5)
_NO_TYPE = "webhook"  # for a payload that does not say what it is about


class WebhookSource(Source[WebhookConfig]):
    """See https://www.standardwebhooks.com."""

    def receive(
        self, request: HookRequest, config: WebhookConfig, secret: str, now: datetime
    ) -> TriggerEvent | HookAnswer:
        text = text_of(request.body)
        message_id = _verify(request, text, secret, now)
        payload = json_of(text)
        event_type = payload.get("type") if isinstance(payload, dict) else None
        if not isinstance(event_type, str):
            event_type = _NO_TYPE
        if config.types and event_type not in config.types:
            return ignored(f"This trigger does not take {event_type}.")
        return TriggerEvent(
            kind=TriggerKind.WEBHOOK,
            type=event_type,
            id=message_id,
            payload=payload,
            received_at=as_timestamp(now),
        )


def _verify(request: HookRequest, text: str, secret: str, now: datetime) -> str:
    """The message's id, once its signature was found right.

    The library signs and this compares: its own comparison reads the machine's clock.
    """
    from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

    signatures = signature_of(request, "webhook-signature", secret)
    message_id, sent_at_s = identifier(request, "webhook-id"), request.headers.get("webhook-timestamp", "")
    check_age(sent_at_s if sent_at_s.isdecimal() else None, now, _TOLERANCE)
    try:
        webhook = Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        raise HookRefused(
            503, "no_secret", "The secret of this trigger is not base64, as Standard Webhooks asks."
        ) from None
    expected = webhook.sign(message_id, datetime.fromtimestamp(int(sent_at_s), UTC), text)
    matches = [hmac.compare_digest(expected, signature) for signature in signatures.split()]
    if not any(matches):  # a sender that changes its secret signs with both
        raise wrong_signature()
    return message_id
