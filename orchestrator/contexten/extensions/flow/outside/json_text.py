"""JSON that comes from outside, read into values that the journal can keep."""

from __future__ import annotations

import json
import math
from typing import Any

from ..definition.values import MAX_DEPTH, MAX_INTEGER, find_surrogate

_MAX_DIGITS = 4000  # Python refuses to convert longer ones (4,300), since the time grows with the square


class JsonTextError(ValueError):
    """The text is not JSON that can be kept; the message says where and why."""


def parse_json(text: str, *, mends: bool = False) -> Any:
    """Read JSON text. Integers beyond 2^53 become strings; with `mends` lone surrogates become U+FFFD.

    Raises JsonTextError where it is not JSON, holds NaN, an infinity or a lone surrogate, or is nested deeper than 50.
    """
    try:
        value = json.loads(text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonTextError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonTextError(f"nested deeper than {MAX_DEPTH}") from None
    if "\\ud" in text or "\\uD" in text:
        if mends:
            return _mend(value)
        if (problem := find_surrogate(value)) is not None:
            raise JsonTextError(f"not JSON that can be kept: {problem}")
    return value


def _parse_int(digits: str) -> int | str:
    if len(digits) < 16:
        return int(digits)
    if len(digits) > _MAX_DIGITS:
        return digits
    number = int(digits)
    return number if -MAX_INTEGER <= number <= MAX_INTEGER else digits


def _parse_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise JsonTextError(f"not JSON that can be kept: the number {digits[:40]} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise JsonTextError(f"not JSON: {name} is not a JSON value; use null or a string")


def mend_text(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD, as UTF-8 cannot carry them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return mend_text(value)
    if isinstance(value, list):
        return [_mend(item) for item in value]
    if isinstance(value, dict):
        return {mend_text(key): _mend(item) for key, item in value.items()}
    return value


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text of JSON data, not escaped beyond need; compact without `indent`."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
