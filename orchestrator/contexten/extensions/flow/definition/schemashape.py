"""The shape of a JSON Schema (2020-12): the rules of its meta-schema as one table, read in one walk.

A general validator takes 0.1 ms for each part of a schema, so half a minute for the largest definition; this walk takes
a few microseconds. What it accepts is compared with the meta-schema itself in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .findings import describe
from .pointers import escape

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_ANCHOR = re.compile(r"[A-Za-z_][-A-Za-z0-9._]*")
_ID = re.compile(r"[^#]*#?")
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class Found(NamedTuple):
    """Something to look at in a schema: a flaw, or a pattern or a reference with its text."""

    kind: str
    """`flaw`, `pattern` or `reference`."""
    path: str
    text: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and float(value).is_integer()


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _is_type(value: Any) -> bool:
    return value in _TYPES if isinstance(value, str) else bool(value) and _is_names(value) and set(value) <= {*_TYPES}


def _is_map_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


_TEXT = (_is_text, "a string")
_FLAG = (_is_flag, "true or false")
_COUNT = (_is_count, "a whole number from 0")
_NUMBER = (_is_number, "a number")
_LIST = (_is_list, "a list")
_ANCHOR_NAME = (lambda value: isinstance(value, str) and _ANCHOR.fullmatch(value) is not None, "a plain name")
_PLAIN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, f"one of {', '.join(_TYPES)}, or a list of them"),
    "enum": _LIST,
    "examples": _LIST,
    "required": (_is_names, "a list of names, each once"),
    "dependentRequired": (_is_map_of(_is_names), "an object with lists of names"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "$id": (lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None, "an identifier without #"),
    "$anchor": _ANCHOR_NAME,
    "$dynamicAnchor": _ANCHOR_NAME,
    "$recursiveAnchor": _ANCHOR_NAME,
    "$vocabulary": (_is_map_of(_is_flag), "an object with true or false"),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), _NUMBER),
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), _COUNT),
    **dict.fromkeys(("minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _FLAG),
    **dict.fromkeys(("title", "description", "$comment", "$schema", "format", "pattern", *REFERENCES), _TEXT),
    **dict.fromkeys(("contentEncoding", "contentMediaType"), _TEXT),
}
_SCHEMAS = frozenset(
    (
        *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"),
        *("unevaluatedItems", "unevaluatedProperties"),
    )
)
_LISTS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_MAPS = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))


class ShapeWalk:
    """Walks schemas and counts their parts: what is a schema by itself inside another one.

    `parts_left` bounds the walk; `is_cut` tells that it was reached.
    """

    def __init__(self, parts_left: int) -> None:
        self.parts_left = parts_left
        self.is_cut = False
        self._seen: set[int] = set()

    def walk(self, schema: Any, path: str) -> Iterator[Found]:
        """What is wrong in the schema and everything below it that was not walked before; its patterns, references.

        The schemas must stay alive between walks: parts are told apart by identity.
        """
        rest: list[tuple[Any, str]] = [(schema, path)]
        while rest:
            part, place = rest.pop()
            if isinstance(part, dict):
                if id(part) in self._seen:
                    continue
                self._seen.add(id(part))
            self.parts_left -= 1
            if self.parts_left < 0:
                self.is_cut = True
                return
            if isinstance(part, dict):
                below: list[tuple[Any, str]] = []
                for key, value in part.items():
                    yield from _keyword(key, value, place, below)
                rest.extend(reversed(below))
            elif not isinstance(part, bool):
                yield Found("flaw", place, f"a schema is an object, true or false, got {describe(part)}")


def _keyword(key: str, value: Any, place: str, below: list[tuple[Any, str]]) -> Iterator[Found]:
    where = f"{place}/{escape(key)}"
    if key in _PLAIN:
        is_fit, expected = _PLAIN[key]
        if not is_fit(value):
            yield Found("flaw", where, f"expected {expected}, got {describe(value)}")
        elif key == "pattern":
            yield Found("pattern", where, value)
        elif key in REFERENCES:
            yield Found("reference", where, value)
    elif key in _SCHEMAS:
        below.append((value, where))
    elif key in _LISTS:
        if isinstance(value, list) and value:
            below.extend((item, f"{where}/{index}") for index, item in enumerate(value))
        else:
            yield Found("flaw", where, f"expected a list of schemas, got {describe(value) if value else 'nothing'}")
    elif key in _MAPS or key == "dependencies":
        if not isinstance(value, dict):
            yield Found("flaw", where, f"expected an object with schemas, got {describe(value)}")
            return
        for name, item in value.items():
            inner = f"{where}/{escape(name)}"
            if key == "patternProperties":
                yield Found("pattern", inner, name)
            if key != "dependencies" or not _is_names(item):
                below.append((item, inner))
