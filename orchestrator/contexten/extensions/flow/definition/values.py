"""The values that flows carry: JSON, with the limits that keep every store, client and language able to read it.

No NaN or infinity, no lone surrogates, integers within 2^53, depth 50, a size in bytes.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from .pointers import escape

MAX_DEPTH = 50
MAX_INTEGER = 2**53
_INFINITY = float("inf")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


_CONTAINERS = (dict, list)


def as_timestamp(moment: datetime) -> str:
    """An aware time as CEL writes timestamps: RFC 3339 in UTC, with Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class NotJson(ValueError):
    """The value breaks a rule of JSON data here.

    `path` is a JSON Pointer into it, `reason` says what is wrong without repeating the value, and
    `code` is `too_large`, `too_deep` or `not_json`.
    """

    def __init__(self, reason: str, code: str = "not_json") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.path = ""

    def __str__(self) -> str:
        return f"at {self.path or 'the top'}: {self.reason}"


def check_json(value: Any, *, max_bytes: int) -> str:
    """The value as compact JSON text, at most `max_bytes` long in UTF-8.

    Tuples become lists; nothing else is converted. Ends in bounded time on any object, cyclic ones
    and ones that share parts many times over included. Raises NotJson.
    """
    kind = type(value)
    try:
        if kind is dict or kind is list:
            _walk(value, 1, max_bytes)
        else:
            _walk((value,), 0, max_bytes + 2)
    except _TooLarge:
        raise _too_large(max_bytes) from None
    text = _encode(value)
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise find_surrogate(value) or NotJson("the text is not valid Unicode") from None
    if size > max_bytes:
        raise _too_large(max_bytes)
    return text


def copy_json(value: Any) -> Any:
    """JSON data anew: what may be changed is copied at every level, the rest is shared."""
    if type(value) is dict:
        return {key: copy_json(inner) if type(inner) in _CONTAINERS else inner for key, inner in value.items()}
    if type(value) is list:
        return [copy_json(inner) if type(inner) in _CONTAINERS else inner for inner in value]
    return value


class _TooLarge(Exception):
    pass


def _too_large(max_bytes: int) -> NotJson:
    return NotJson(f"it is larger than {max_bytes:,} bytes as JSON", "too_large")


def _walk(container: Any, depth: int, budget: int) -> int:
    """What is left of `budget` after the least that the container can take as JSON. Raises NotJson, _TooLarge."""
    if depth > MAX_DEPTH:
        raise NotJson(f"it is nested deeper than {MAX_DEPTH} levels", "too_deep")
    if isinstance(container, dict):
        pairs: Any = container.items()
        budget -= _walk_keys(container)
    else:
        pairs = enumerate(container)
    budget -= len(container) * 2
    if budget < 0:
        raise _TooLarge
    for key, value in pairs:
        kind = type(value)
        if kind is str:
            budget -= len(value)
            if budget < 0:
                raise _TooLarge
        elif (
            kind is bool
            or value is None
            or (kind is int and -MAX_INTEGER <= value <= MAX_INTEGER)
            or (kind is float and -_INFINITY < value < _INFINITY)
        ):
            continue
        else:
            try:
                budget = _walk_other(value, depth, budget)
            except NotJson as problem:
                raise _at(key, problem, depth) from None
    return budget


def _walk_keys(container: dict[Any, Any]) -> int:
    size = 0
    for key in container:
        if not isinstance(key, str):
            raise NotJson(f"the key {_shown(key)} is not a string")
        size += len(key) + 4
    return size


def _walk_other(value: Any, depth: int, budget: int) -> int:
    if isinstance(value, dict | list | tuple):
        return _walk(value, depth + 1, budget)
    if type(value) is int:
        raise NotJson("the integer is beyond 2^53; give it as a string")
    if type(value) is float:
        raise NotJson("NaN and infinity are not JSON; give null or a string")
    if isinstance(value, str | int | float):  # a subclass, such as StrEnum: the plain value is what is encoded
        plain: Any
        if isinstance(value, str):
            plain = str.__str__(value)
        else:
            plain = float(value) if isinstance(value, float) else int(value)
        return _walk((plain,), 0, budget + 2)
    raise NotJson(f"a {type(value).__name__} is not JSON data")


def _at(key: Any, problem: NotJson, depth: int) -> NotJson:
    if depth > 0:
        problem.path = f"/{escape(key)}{problem.path}"
    return problem


def _shown(key: object) -> str:
    return repr(key)[:40] if isinstance(key, int | float | None) else f"of type {type(key).__name__}"


def find_surrogate(value: Any) -> NotJson | None:
    """What to raise of JSON data that holds a lone surrogate, with its place; None where it holds none."""
    trail: list[tuple[Any, str]] = [(value, "")]
    while trail:
        current, path = trail.pop()
        if isinstance(current, str):
            if _SURROGATE.search(current):
                return _not_unicode("the text", path)
        elif isinstance(current, dict):
            if any(_SURROGATE.search(key) for key in current):
                return _not_unicode("a key", path)
            trail.extend((inner, f"{path}/{escape(key)}") for key, inner in current.items())
        elif isinstance(current, list | tuple):
            trail.extend((inner, f"{path}/{index}") for index, inner in enumerate(current))
    return None


def _not_unicode(what: str, path: str) -> NotJson:
    problem = NotJson(f"{what} holds a lone surrogate, which is not valid Unicode")
    problem.path = path
    return problem
