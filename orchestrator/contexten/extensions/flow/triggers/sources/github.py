"""GitHub's webhooks: signed with HMAC-SHA256 over the body, told apart by their delivery's GUID.

GitHub signs no time, so a recorded request cannot be told by its age, only by the GUID that was seen before.
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs

from ...definition.values import as_timestamp
from ..configs import GithubConfig
from ..model import HookAnswer, HookRequest, TriggerEvent, TriggerKind
from .source import (
    HookRefused,
    Source,
    identifier,
    ignored,
    is_wanted,
    malformed,
    object_of,
    signature_of,
    text_of,
    wrong_signature,
)

_JSON_ASKED = "set the content type to application/json"


class GithubSource(Source[GithubConfig]):
    """See https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries."""

    def receive(
        self, request: HookRequest, config: GithubConfig, secret: str, now: datetime
    ) -> TriggerEvent | HookAnswer:
        _verify(request, secret)
        name, delivery = identifier(request, "x-github-event"), identifier(request, "x-github-delivery")
        payload = _payload(request)
        if name == "ping":
            return HookAnswer(status=200, body={"pong": "The webhook reaches its trigger; nothing was started."})
        action = payload.get("action")
        event_type = f"{name}:{action}" if isinstance(action, str) else name
        if not is_wanted(event_type, config.events):
            return ignored(f"This trigger does not take {event_type}.")
        if config.repositories and not _is_from(payload, config.repositories):
            return ignored("This trigger does not take events of that repository.")
        return TriggerEvent(
            kind=TriggerKind.GITHUB,
            type=event_type,
            id=delivery,
            payload=payload,
            received_at=as_timestamp(now),
        )


def _verify(request: HookRequest, secret: str) -> None:
    from gidgethub import ValidationFailure
    from gidgethub.sansio import validate_event

    if request.headers.get("x-hub-signature") and not request.headers.get("x-hub-signature-256"):
        raise HookRefused(
            401,
            "missing_signature",
            "The request is signed with SHA-1 only (X-Hub-Signature), which is not taken: GitHub sends "
            "X-Hub-Signature-256 beside it, so a sender that is older, or a proxy between, leaves that header out.",
        )
    signature = signature_of(request, "x-hub-signature-256", secret)
    if not signature.startswith("sha256="):  # the library would take SHA-1
        raise wrong_signature()
    try:
        validate_event(request.body, signature=signature, secret=secret)
    except ValidationFailure:
        raise wrong_signature() from None


def _payload(request: HookRequest) -> dict[str, Any]:
    text = text_of(request.body)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        return object_of(text)
    if content_type == "application/x-www-form-urlencoded":
        try:
            return object_of(parse_qs(text, strict_parsing=True, errors="strict", max_num_fields=1)["payload"][0])
        except (ValueError, KeyError):
            raise malformed(f"it is no form with one field, payload; {_JSON_ASKED}") from None
    raise HookRefused(400, "malformed_request", f"The content type is neither JSON nor a form; {_JSON_ASKED}.")


def _is_from(payload: dict[str, Any], repositories: tuple[str, ...]) -> bool:
    repository = payload.get("repository")
    name = repository.get("full_name") if isinstance(repository, dict) else None
    if not isinstance(name, str):
        return False
    return any(fnmatchcase(name.lower(), wanted.lower()) for wanted in repositories)
