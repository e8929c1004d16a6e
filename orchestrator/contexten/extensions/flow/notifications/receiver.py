"""A receiver as messages are sent to it: its address, and how they are signed."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from ..agents.secrets import SecretVault
from ..clock import make_secret
from ..errors import AttemptError
from .model import NotificationKind

RECEIVER = "notifications"
"""What a secret's grant names where it names tools: `NAME@tool:notifications`."""

_SECRET_PREFIX = "whsec_"  # noqa: S105 - what signing secrets begin with, by Standard Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Where a message goes."""

    kind: NotificationKind
    url: str
    secret: str | None = None
    """With which webhooks are signed."""

    def headers(self, dispatch_id: str, now: datetime, body: str) -> Mapping[str, str]:
        """The headers of a try at that time."""
        headers = {"content-type": "application/json"}
        if self.secret is not None:
            from standardwebhooks import Webhook

            headers |= {
                "webhook-id": dispatch_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(self.secret).sign(dispatch_id, now, body),
            }
        return headers


def new_signing_secret() -> str:
    """A secret for signing, as Standard Webhooks writes one."""
    return _SECRET_PREFIX + binascii.b2a_base64(make_secret(), newline=False).decode()


def receiver_of(
    vault: SecretVault, kind: str, url: str | None, secret_name: str | None, secret: str | None
) -> Receiver:
    """The receiver of a recorded row, its secret read now. Raises AttemptError (invalid) where a named secret is not
    granted or set, or is not what that kind needs; the text never has the value."""
    if secret_name is not None:
        secret = vault.value(secret_name)
    if kind == NotificationKind.WEBHOOK:
        if secret_name is not None:
            vault.require([secret_name], tools=[RECEIVER], receiver=RECEIVER)
            if not _is_signing_secret(secret or ""):
                raise AttemptError(
                    f"The secret {secret_name} is none for webhooks: {_SECRET_PREFIX} and at least 24 bytes in base64 "
                    "are expected.",
                    kind="invalid",
                )
        return Receiver(kind=NotificationKind.WEBHOOK, url=url or "", secret=secret)
    name, address = secret_name or "", secret or ""
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        raise AttemptError(
            f"The secret {name} is not the https URL of an incoming webhook.",
            kind="invalid",
        )
    if not vault.granted_to_host(name, parts.hostname):
        vault.require([name], tools=[RECEIVER], receiver=RECEIVER)
    return Receiver(kind=NotificationKind.SLACK, url=address)


def _is_signing_secret(text: str) -> bool:
    try:
        key = binascii.a2b_base64(text.removeprefix(_SECRET_PREFIX), strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_SECRET_PREFIX) and len(key) >= 24
