"""The seam of hooks' sources, and what they have in common: reading a request that nobody has vouched for yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from ...outside.json_text import JsonTextError, parse_json
from ..configs import TriggerConfig
from ..model import HookAnswer, HookRequest, TriggerEvent

_MAX_ID = 200


class HookRefused(Exception):
    """A request is not what its trigger takes: nothing is recorded, and the sender is told why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


ConfigT_contra = TypeVar("ConfigT_contra", bound=TriggerConfig, contravariant=True)


class Source(Protocol[ConfigT_contra]):
    """One kind of sender."""

    def receive(
        self, request: HookRequest, config: ConfigT_contra, secret: str, now: datetime
    ) -> TriggerEvent | HookAnswer:
        """The event of a genuine request; or what is answered at once, where nothing is to start.

        Raises HookRefused for every other request: 401 where the signature is missing, wrong or too old, 400 where
        what was signed cannot be read. What a body says is not looked at before its signature was found right.
        """
        ...

    def accepted(self, event: TriggerEvent, config: ConfigT_contra, delivery_id: str, *, is_new: bool) -> HookAnswer:
        """What the sender of a recorded event is answered; `is_new` is False where it had been recorded before."""
        return HookAnswer(status=202 if is_new else 200, body={"delivery_id": delivery_id})


def signature_of(request: HookRequest, name: str, secret: str) -> str:
    """The signature in that header. Raises HookRefused where there is none, or no secret to compare it with."""
    if not secret.strip():  # whoever knows that it is empty could sign
        raise HookRefused(503, "no_secret", "The secret of this trigger is not set on the server.")
    value = request.headers.get(name, "")
    if not value:
        raise HookRefused(401, "missing_signature", f"The request is not signed: there is no header {name}.")
    if not value.isascii():  # constant-time comparison takes no other text
        raise wrong_signature()
    return value


def wrong_signature() -> HookRefused:
    """What every wrong signature is answered; it tells nothing about the right one."""
    return HookRefused(
        401, "wrong_signature", "The signature does not match: is the secret the same here and at the sender's?"
    )


def check_age(sent_at_s: str | float | None, now: datetime, tolerance: timedelta) -> None:
    """Raises HookRefused where the signed time, in seconds since the epoch, is farther from `now` than that, or is
    none."""
    try:
        sent_at = datetime.fromtimestamp(float(sent_at_s if sent_at_s is not None else ""), UTC)
    except (ValueError, OverflowError, OSError):  # what the platform calls a time that no calendar has
        raise HookRefused(401, "wrong_time", "The request does not say when it was sent.") from None
    if abs(now - sent_at) > tolerance:
        raise HookRefused(
            401,
            "stale_request",
            f"The request was signed more than {tolerance.total_seconds():g} s from now: it is old, or a clock errs.",
        )


def identifier(request: HookRequest, name: str) -> str:
    """The header that names what happened or the delivery. Raises HookRefused where it is missing or too long."""
    value = request.headers.get(name, "").strip()
    if not value or len(value) > _MAX_ID:
        raise HookRefused(
            400, "malformed_request", f"The header {name} is missing or longer than {_MAX_ID} characters."
        )
    return value


def text_of(body: bytes) -> str:
    """Raises HookRefused where the body is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise malformed("it is not UTF-8") from None


def json_of(text: str) -> Any:
    """The data of a body. Raises HookRefused where it is no JSON; how deep and large it is matters to who keeps it."""
    try:
        return parse_json(text)
    except JsonTextError as error:
        raise malformed(str(error)) from None


def object_of(text: str) -> dict[str, Any]:
    """The same, where only an object will do."""
    value = json_of(text)
    if not isinstance(value, dict):
        raise malformed("it is no JSON object")
    return value


def malformed(reason: str) -> HookRefused:
    """A body that its sender signed and nobody can read."""
    return HookRefused(400, "malformed_payload", f"The body cannot be read: {reason}.")


def is_wanted(event_type: str, wanted: Sequence[str]) -> bool:
    """Whether the trigger asked for it: all of it (`issues`), or one kind of it (`issues:opened`), or for anything."""
    return not wanted or event_type in wanted or event_type.partition(":")[0] in wanted


def ignored(what: str) -> HookAnswer:
    """A genuine request that starts nothing; the sender need not send it again."""
    return HookAnswer(status=200, body={"ignored": what})
