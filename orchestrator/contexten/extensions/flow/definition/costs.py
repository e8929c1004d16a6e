"""How much an expression may compute, worked out before it does.

CEL's comprehensions append to lists in quadratic time, strings can be doubled, and an evaluation cannot
be interrupted once it runs: so an upper bound of its work is taken first, over the expression's tree and
the sizes of the values that it is about to be given. Units are about 1/64 microsecond, or one byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .syntax import Build, Call, Literal, Loop, Name, Node, Select

MAX_WORK = 64_000_000  # about a second, or 64 MB
MAX_ITERATIONS = 10_000  # the engine's own budget for an evaluation
_STEP = 8  # one node of the tree evaluated once
_ITEM = 64  # one value made or handed over
_APPEND = 2  # times n^2, for a list that grows in a comprehension: 20-50 ns measured

ALTERNATIVE = "use a data_processor task (JMESPath) for bulk data"


class TooMuchWork(Exception):
    """The expression might hold the process for more than about a second with these values."""


@dataclass(frozen=True, slots=True)
class Size:
    """An upper bound of a value's size."""

    weight: int
    """Of all of it: 64 for each value in it, and a unit for each character."""
    length: int = 0
    """Items of a list, entries of a map, characters of a string."""
    item: Size | None = None
    """What holds of each item, or of each entry's value."""
    key: int = 0
    """Characters of the longest key."""


_SCALAR = Size(_ITEM)


def measure(value: Any) -> Size:
    """The size of JSON data, exact but for the items, which share one bound."""
    if isinstance(value, str):
        return Size(_ITEM + len(value), len(value))
    if isinstance(value, dict):
        key = max(map(len, value), default=0)
        return _measure_items(value.values(), len(value), sum(map(len, value)) + _ITEM * len(value), key)
    if isinstance(value, list | tuple):
        return _measure_items(value, len(value), 0, 0)
    return _SCALAR


def _measure_items(values: Any, length: int, weight: int, key: int) -> Size:
    weight += _ITEM
    item: Size | None = None
    longest = -1
    has_scalar = False
    for value in values:
        kind = type(value)
        if kind is str:
            weight += _ITEM + len(value)
            longest = max(longest, len(value))
        elif kind is dict or kind is list or kind is tuple:
            size = measure(value)
            weight += size.weight
            item = _either(item, size)
        else:
            weight += _ITEM
            has_scalar = True
    if longest >= 0:
        item = _either(item, Size(_ITEM + longest, longest))
    elif has_scalar and item is None:
        item = _SCALAR
    return Size(weight, length, item, key)


def _either(left: Size | None, right: Size | None) -> Size | None:
    """A bound that holds for both."""
    if left is None or left is right:
        return right
    if right is None:
        return left
    return Size(
        max(left.weight, right.weight),
        max(left.length, right.length),
        _either(left.item, right.item),
        max(left.key, right.key),
    )


def _any(*sizes: Size) -> Size:
    bound: Size | None = None
    for size in sizes:
        bound = _either(bound, size)
    return bound or _SCALAR


_LIGHT = frozenset(
    (
        *("_[_]", "_?_:_", "_&&_", "_||_", "!_", "-_", "_-_", "_*_", "_/_", "_%_", "size", "int", "uint", "double"),
        *("bool", "contains", "startsWith", "endsWith", "matches", "type", "timestamp", "duration", "dyn"),
    )
)
_COMPARISONS = frozenset(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"))


def is_light(tree: Node) -> bool:
    """Whether the tree only chooses and compares, so that its work is small whatever its values are."""
    if isinstance(tree, Literal | Name):
        return True
    if isinstance(tree, Select):
        return is_light(tree.operand)
    if isinstance(tree, Call):
        if tree.function in _COMPARISONS:
            is_fit = any(isinstance(argument, Literal) for argument in tree.arguments)
        else:
            is_fit = tree.function in _LIGHT
        return is_fit and all(is_light(argument) for argument in tree.arguments)
    return isinstance(tree, Build) and not tree.elements


class Estimate:
    """The work of one evaluation, added up while the tree is walked. Raises TooMuchWork when it passes the bound."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._measured: dict[int, Size] = {}
        self.work = 0

    def check(self, tree: Node) -> None:
        """Add up the tree's work and what handing its result over costs. Raises TooMuchWork."""
        self._spend(self._size(tree, {}, 1).weight)

    def _spend(self, units: int) -> None:
        self.work += units
        if self.work > MAX_WORK:
            raise TooMuchWork

    def _known(self, node: Node, bound: Mapping[str, Size]) -> tuple[bool, Any]:
        """Whether the node selects a value that is at hand, and that value."""
        if isinstance(node, Name):
            return node.name not in bound and node.name in self._values, self._values.get(node.name)
        key: Any = None
        if isinstance(node, Select) and not node.test:
            operand, key = node.operand, node.field
        elif isinstance(node, Call) and node.function == "_[_]" and isinstance(node.arguments[1], Literal):
            operand, key = node.arguments[0], node.arguments[1].value
        else:
            return False, None
        known, value = self._known(operand, bound)
        if not known:
            return False, None
        if isinstance(value, dict):
            return True, value.get(key)
        if isinstance(value, list | tuple) and type(key) is int and 0 <= key < len(value):
            return True, value[key]
        return True, None  # an error when it is evaluated

    def _size(self, node: Node, bound: Mapping[str, Size], times: int) -> Size:
        """The size of the node's value; its work is spent `times` over."""
        self._spend(_STEP * times)
        if isinstance(node, Literal):
            length = len(node.value) if isinstance(node.value, str | bytes) else 0
            return Size(_ITEM + length, length)
        if isinstance(node, Name) and node.name in bound:
            return bound[node.name]
        known, value = self._known(node, bound)
        if known:
            size = self._measured.get(id(value))
            if size is None:
                size = self._measured[id(value)] = measure(value)
            return size
        if isinstance(node, Name):
            return _SCALAR
        if isinstance(node, Select):
            if node.test and self._known(node.operand, bound)[0]:
                return _SCALAR
            operand = self._size(node.operand, bound, times)
            return _SCALAR if node.test else operand.item or _SCALAR
        if isinstance(node, Build):
            keys = [self._size(part, bound, times) for part in node.keys]
            parts = [self._size(part, bound, times) for part in node.elements]
            weight = _ITEM + sum(part.weight for part in (*keys, *parts))
            self._spend(_ITEM * (len(parts) + len(keys)) * times)
            longest = max((key.length for key in keys), default=0)
            return Size(weight, len(parts), _any(*parts) if parts else None, longest)
        if isinstance(node, Loop):
            return self._loop(node, bound, times)
        return self._call(node, [self._size(argument, bound, times) for argument in node.arguments], times)

    def _loop(self, node: Loop, bound: Mapping[str, Size], times: int) -> Size:
        source = self._size(node.source, bound, times)
        start = self._size(node.start, bound, times)
        count = min(source.length, MAX_ITERATIONS)
        if count == 0:
            return start
        variable = source.item or _SCALAR
        if source.key:  # over a map, the keys
            variable = _any(variable, Size(_ITEM + source.key, source.key))
        inner = {**bound, node.variable: variable, node.accumulator: start}
        self._size(node.condition, inner, times * count)
        step = self._size(node.step, inner, times * count)
        # The macros use their accumulator once a step and append at most one item, so growth is linear.
        grown = Size(
            start.weight + count * max(0, step.weight - start.weight),
            start.length + count * max(0, step.length - start.length),
            _either(start.item, step.item),
            step.key,
        )
        if isinstance(node.start, Build):
            self._spend(_APPEND * count * count * times + grown.weight * times)
        return self._size(node.result, {**bound, node.accumulator: grown}, times)

    def _call(self, node: Call, sizes: list[Size], times: int) -> Size:
        name = node.function
        first = sizes[0] if sizes else _SCALAR
        if name == "_+_" and len(sizes) == 2:
            self._spend((first.length + sizes[1].length) * 4 * times)
            both = first.weight + sizes[1].weight
            return Size(both, first.length + sizes[1].length, _either(first.item, sizes[1].item))
        if name == "_?_:_" and len(sizes) == 3:
            return _any(sizes[1], sizes[2])
        if name == "_[_]":
            return first.item or _SCALAR
        if name == "dyn":
            return first
        if name in ("_&&_", "_||_", "!_", "@not_strictly_false", "size", "type"):
            return _SCALAR
        self._spend(sum(size.weight for size in sizes) * times)  # each looks at all that it is given
        return _result_of(name, first, sizes)


def _result_of(name: str, first: Size, sizes: list[Size]) -> Size:
    if name in ("min", "max"):
        return first.item or _SCALAR
    if name in ("sort_by", "unique"):
        return first
    if name == "flatten":
        item = first.item or _SCALAR
        return Size(first.weight, first.length * max(1, item.length), _either(item, item.item))
    if name == "group_by":
        return Size(first.weight + 192 * first.length, first.length, first, first.weight)
    if name == "join":
        characters = first.weight + first.length * (sizes[1].length if len(sizes) > 1 else 0)
        return Size(_ITEM + characters, characters)
    if name == "split":
        return Size(
            _ITEM * (first.length + 2) + first.length, first.length + 1, Size(_ITEM + first.length, first.length)
        )
    longest = max((size.length for size in sizes), default=0) * 4 + 64  # string(), bytes(), of what is no text too
    return Size(_ITEM + longest, longest)
