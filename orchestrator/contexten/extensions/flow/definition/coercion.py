"""Mechanical mends of values that are right but for their type or spelling."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

NO_MEND: Final = object()
"""Nothing mechanical would make the value right."""

_TYPES = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "typed_dict_type": "an object",
    "bool_parsing": "true or false",
    "int_parsing": "an integer",
    "float_parsing": "a number",
    "none_required": "null",
}
_TRUE = frozenset(("true", "yes", "on", "1"))
_FALSE = frozenset(("false", "no", "off", "0"))


def expected_type(error_type: str) -> str | None:
    """The type that a pydantic error of that kind asks for; None where the error is not about the type."""
    return _TYPES.get(error_type)


def coerce(value: Any, expected: Iterable[str]) -> Any:
    """The value as one of the expected types (`expected_type`'s words), or NO_MEND."""
    for name in expected:
        mend = _MENDS.get(name, _no_mend)(value)
        if mend is not NO_MEND:
            return mend
    return NO_MEND


def _no_mend(value: Any) -> Any:  # noqa: ARG001 - one of the mends
    return NO_MEND


def _boolean(value: Any) -> Any:
    if isinstance(value, str):
        folded = value.strip().casefold()
        return True if folded in _TRUE else False if folded in _FALSE else NO_MEND
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    return NO_MEND


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return NO_MEND
    try:
        number = json.loads(value.strip().lstrip("+"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return NO_MEND
    return number if type(number) in (int, float) else NO_MEND


def _integer(value: Any) -> Any:
    number = value if type(value) is float else _number(value)
    if type(number) is float and number.is_integer() and abs(number) <= 2**53:
        return int(number)
    return number if type(number) is int and abs(number) <= 2**53 else NO_MEND


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | int | float) else NO_MEND


def _list(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str | dict) and value else NO_MEND


def _object(value: Any) -> Any:
    if value is None or value in ([], ""):
        return {}
    return NO_MEND


_MENDS = {
    "true or false": _boolean,
    "an integer": _integer,
    "a number": _number,
    "a list": _list,
    "an object": _object,
    "a string": _text,
}
