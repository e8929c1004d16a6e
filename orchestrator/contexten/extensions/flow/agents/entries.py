"""What an agent tells of its attempt, as entries that the journal can keep."""

from __future__ import annotations

from typing import Any, get_args

from ..store.moves import USAGE
from .failures import MAX_NUMBER, kept_data
from .protocol import AttemptEvent
from .secrets import SecretVault

_EVENTS = frozenset(get_args(AttemptEvent))
_MAX_MODEL = 200  # characters
_COUNTS = ("model_calls", "input_tokens", "output_tokens")


def kept_entry(event: object, data: object, vault: SecretVault) -> tuple[dict[str, Any] | None, str | None]:
    """The data of an entry, masked and bounded, or None where the journal has no such entry; and what was left out."""
    if not isinstance(event, str) or event not in _EVENTS:
        return None, f"there is no event {event!r:.100}"
    if not isinstance(data, dict):
        return None, f"the data of {event} are no object"
    kept = kept_data(data, vault)
    if event != USAGE:
        return kept, None
    wrong = [name for name, value in kept.items() if not _is_usage(name, value)]
    for name in wrong:
        del kept[name]
    return kept, f"{event} with such {', '.join(wrong)}" if wrong else None


def _is_usage(name: str, value: object) -> bool:
    if name == "model":
        return isinstance(value, str) and len(value) <= _MAX_MODEL
    if name in _COUNTS:
        return isinstance(value, int) and _is_amount(value)
    if name == "cost_usd":
        return isinstance(value, int | float) and _is_amount(value)
    return True


def _is_amount(value: float) -> bool:
    return not isinstance(value, bool) and 0 <= value <= MAX_NUMBER
