"""The functions that templates have besides CEL's own: each takes time linear in its arguments (sorting apart).

They come in both forms, `sum(rows)` and `rows.sum()`. What they raise becomes the expression's error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any

from cel_expr_python import cel

MAX_TEXT = 10 << 20  # characters that join may make: an output is no larger


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "map"


def _numbers(name: str, values: Sequence[Any]) -> Sequence[Any]:
    for index, value in enumerate(values):
        if _kind(value) != "number":
            raise ValueError(f"{name}() adds numbers; item {index} is a {_kind(value)}")
    return values


def sum_(values: list[Any]) -> Any:
    """The numbers' sum; 0 for none. A double where one of them is."""
    total = sum(_numbers("sum", values))
    return _int64("sum", total)


def avg(values: list[Any]) -> float:
    """The numbers' mean, a double. Raises ValueError for an empty list."""
    if not values:
        raise ValueError("avg() of an empty list has no value; test size(list) > 0 first")
    return float(sum(_numbers("avg", values)) / len(values))


def _int64(name: str, value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}() is beyond the 64 bits of an integer; use double() on the items")
    return value


def _ordered(name: str, values: Sequence[Any]) -> None:
    kinds = {_kind(value) for value in values}
    if len(kinds) > 1 or not kinds <= {"number", "string", "bool"}:
        raise ValueError(f"{name}() compares numbers or strings of one kind; the items are {', '.join(sorted(kinds))}")


def min_(values: list[Any]) -> Any:
    """The least number or string. Raises ValueError for an empty list."""
    if not values:
        raise ValueError("min() of an empty list has no value; test size(list) > 0 first")
    _ordered("min", values)
    return min(values)


def max_(values: list[Any]) -> Any:
    """The greatest number or string. Raises ValueError for an empty list."""
    if not values:
        raise ValueError("max() of an empty list has no value; test size(list) > 0 first")
    _ordered("max", values)
    return max(values)


def _field(name: str, row: Any, path: str, index: int) -> Any:
    value = row
    for key in path.split("."):
        if not isinstance(value, dict):
            raise TypeError(f"{name}() looks for {path!r} in each item; item {index} has no such field")
        value = value.get(key)
    return value


def sort_by(rows: list[Any], path: str) -> list[Any]:
    """The maps in ascending order of that field (`a.b` reaches inside); stable; null or absent first."""
    keys = [_field("sort_by", row, path, index) for index, row in enumerate(rows)]
    _ordered("sort_by", [key for key in keys if key is not None] or [0])

    def compare(left: int, right: int) -> int:
        a, b = keys[left], keys[right]
        if a is None or b is None:
            return (a is not None) - (b is not None)
        return int(a > b) - int(a < b)

    return [rows[index] for index in sorted(range(len(rows)), key=cmp_to_key(compare))]


def sort(values: list[Any]) -> list[Any]:
    """Numbers or strings in ascending order."""
    if values:
        _ordered("sort_by", values)
    return sorted(values)


def group_by(rows: list[Any], path: str) -> dict[str, list[Any]]:
    """A map from that field's values, as strings, to the items that have them; absent is `null`."""
    groups: dict[str, list[Any]] = {}
    for index, row in enumerate(rows):
        value = _field("group_by", row, path, index)
        if isinstance(value, dict | list):
            raise TypeError(f"group_by() needs plain values in {path!r}; item {index} has a {_kind(value)}")
        groups.setdefault(as_text(value), []).append(row)
    return groups


def unique(values: list[Any]) -> list[Any]:
    """The values in order without repetitions; 1 and 1.0 are the same, 1 and true are not."""
    seen: set[Any] = set()
    kept: list[Any] = []
    for value in values:
        if isinstance(value, dict | list):
            key: Any = json.dumps(value, sort_keys=True)
        else:
            key = (_kind(value), value)
        if key not in seen:
            seen.add(key)
            kept.append(value)
    return kept


def flatten(values: list[Any]) -> list[Any]:
    """One level of nesting less; what is no list stays as it is."""
    flat: list[Any] = []
    for value in values:
        if isinstance(value, list):
            flat.extend(value)
        else:
            flat.append(value)
    return flat


def join(values: list[Any], separator: str = "") -> str:
    """The values as one string: strings as they are, others as JSON."""
    texts = [as_text(value) for value in values]
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_TEXT:
        raise ValueError(f"join() would make a string of more than {MAX_TEXT:,} characters")
    return separator.join(texts)


def split(text: str, separator: str) -> list[str]:
    """The parts of the string between separators; an empty separator splits at white space."""
    return text.split(separator) if separator else text.split()


def as_text(value: Any) -> str:
    """A value as it reads inside a string: strings as they are, others as compact JSON."""
    if type(value) is str:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_LIST, _STRING, _DYN = cel.Type.LIST, cel.Type.STRING, cel.Type.DYN
_DOUBLE = cel.Type.DOUBLE
_NAMED: tuple[tuple[str, Callable[..., Any], tuple[Any, ...], Any], ...] = (
    ("sum", sum_, (_LIST,), _DYN),
    ("avg", avg, (_LIST,), _DOUBLE),
    ("min", min_, (_LIST,), _DYN),
    ("max", max_, (_LIST,), _DYN),
    ("sort_by", sort_by, (_LIST, _STRING), _LIST),
    ("sort_by", sort, (_LIST,), _LIST),
    ("group_by", group_by, (_LIST, _STRING), cel.Type.Map(_STRING, _LIST)),
    ("unique", unique, (_LIST,), _LIST),
    ("flatten", flatten, (_LIST,), _LIST),
    ("join", join, (_LIST, _STRING), _STRING),
    ("join", join, (_LIST,), _STRING),
    ("split", split, (_STRING, _STRING), cel.Type.List(_STRING)),
)

FUNCTION_NAMES = tuple(dict.fromkeys(name for name, *_ in _NAMED))
"""The names that expressions call."""


def declarations() -> list[cel.FunctionDecl]:
    """The functions as a CEL environment takes them."""
    overloads: dict[str, list[cel.Overload]] = {}
    for name, function, parameters, result in _NAMED:
        for is_member in (False, True):
            overload = cel.Overload(
                id=f"{name}_{len(parameters)}_{'member' if is_member else 'global'}",
                return_type=result,
                parameters=list(parameters),
                is_member=is_member,
                impl=function,
            )
            overloads.setdefault(name, []).append(overload)
    return [cel.FunctionDecl(name, found) for name, found in overloads.items()]
