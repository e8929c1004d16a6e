"""What strangers say and raise, as text and failures that can be kept: masked and bounded."""

from __future__ import annotations

import json
from typing import Any

from ..definition import NotJson, check_json
from ..errors import AttemptError
from ..recovery.error_kinds import ErrorKinds
from .secrets import SecretVault

MAX_MESSAGE = 4000  # characters of an error's message: what a journal entry and a reader can use
MAX_DETAILS = 16_000  # bytes of what it carries besides
MAX_NUMBER = 2.0**53


def kept_text(value: object, vault: SecretVault) -> str:
    """What a stranger says, masked, as text that can be kept."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - `__str__` of a stranger may raise anything
        return ""
    return str(vault.mask(text)).encode("utf-8", "replace").decode()[:MAX_MESSAGE]


def kept_failure(error: BaseException, vault: SecretVault, kinds: ErrorKinds) -> AttemptError:
    """What an agent raised, masked and bounded, of the kind that `kinds` say."""
    kind = kinds.classify(error)
    if isinstance(error, AttemptError):
        return AttemptError(kept_text(error.message, vault), kind=kind, details=_details(vault.mask(error.details)))
    name, text = type(error).__name__, kept_text(error, vault)
    return AttemptError((f"{name}: {text}" if text else name)[:MAX_MESSAGE], kind=kind)


def kept_data(data: dict[str, Any], vault: SecretVault) -> dict[str, Any]:
    """What an agent says of its attempt, masked and bounded, as data that can be kept."""
    masked: dict[str, Any] = vault.mask(data)
    try:
        kept: dict[str, Any] = json.loads(check_json(masked, max_bytes=MAX_DETAILS))  # the agent may change its own
    except NotJson:
        return {kept_text(name, vault)[:100]: _cut(value, vault) for name, value in list(data.items())[:20]}
    return kept


def _cut(value: Any, vault: SecretVault) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value if value is None or abs(value) < MAX_NUMBER else None  # NaN is not below either
    return kept_text(value, vault)[:500]


def _details(details: Any) -> dict[str, Any] | None:
    if details is None:
        return None
    try:
        check_json(details, max_bytes=MAX_DETAILS)
    except NotJson:
        return None
    return details if isinstance(details, dict) else None
