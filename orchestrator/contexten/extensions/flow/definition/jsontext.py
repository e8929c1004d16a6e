"""JSON text that people and agents write: a key that stands twice in an object is a mistake, not the last one's win."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from .pointers import escape

_MAX_TOLD = 20


class DuplicateKeys(ValueError):
    """Objects of the text have a key more than once.

    `keys` are JSON Pointers with the key that each ends in, 20 at most; `document` is the data with the last of each.
    """

    def __init__(self, keys: tuple[tuple[str, str], ...], document: Any) -> None:
        path, key = keys[0]
        more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
        super().__init__(f"the key {key[:80]!r} is there more than once, at {path}{more}; keep one of them")
        self.keys = keys
        self.document = document


def load_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The data of JSON text; `parse_constant` is asked about NaN and infinity.

    Raises DuplicateKeys, other ValueErrors where it is no JSON, and RecursionError.
    """
    twice: dict[int, tuple[dict[str, Any], list[str]]] = {}

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice[id(built)] = built, [key for key, count in counts.items() if count > 1]
        return built

    document = json.loads(text, object_pairs_hook=build, parse_constant=parse_constant)
    if twice:
        raise DuplicateKeys(tuple(_places(document, twice)), document)
    return document


def _places(document: Any, twice: dict[int, tuple[dict[str, Any], list[str]]]) -> list[tuple[str, str]]:
    """Where they stand. One inside a value that another one replaced is not looked for."""
    found: list[tuple[str, str]] = []
    rest: list[tuple[Any, str]] = [(document, "")]
    while rest and len(found) < _MAX_TOLD:
        value, path = rest.pop()
        if isinstance(value, dict):
            if id(value) in twice:
                found += [(f"{path}/{escape(key)}", key) for key in twice[id(value)][1]]
            rest.extend((inner, f"{path}/{escape(key)}") for key, inner in reversed(value.items()))
        elif isinstance(value, list):
            rest.extend((value[index], f"{path}/{index}") for index in range(len(value) - 1, -1, -1))
    return found[:_MAX_TOLD]
