"""The syntax tree of a compiled CEL expression.

The binding hands its tree out only as a serialised `cel.expr.CheckedExpr`; the few message kinds of
it that say which names an expression uses, and how much it may compute, are read here. Field numbers
are those of CEL's published `syntax.proto` and `checked.proto`. Macros are expanded already.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | bytes | None


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Name:
    """A variable of the scope, or one that a comprehension binds."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`; with `test`, `has(operand.field)`."""

    operand: Node
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (`_+_`, `_[_]`, `_?_:_`, ...); a method's target is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Build:
    """A list, map or message literal and what it is made of; `keys` of a map only."""

    elements: tuple[Node, ...]
    keys: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """What `all`, `exists`, `map`, `filter` and their like become: a fold over `source`."""

    variable: str
    source: Node
    accumulator: str
    start: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = Literal | Name | Select | Call | Build | Loop


def read_tree(serialized: bytes) -> Node:
    """The tree of what `cel.Expression.serialize()` gave. Raises ValueError on anything else."""
    try:
        for number, value in _fields(serialized):  # google.protobuf.Any: 2 is the CheckedExpr
            if number == 2:
                for inner, expression in _fields(_bytes(value)):
                    if inner == 4:
                        return _node(_bytes(expression))
    except (IndexError, struct.error) as problem:
        raise ValueError("the expression's tree is cut off") from problem
    raise ValueError("the expression has no tree")


Field: TypeAlias = int | bytes


def _fields(data: bytes) -> Iterator[tuple[int, Field]]:
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 2:
            length, position = _varint(data, position)
            yield key >> 3, data[position : position + length]
            position += length
        elif kind == 0:
            number, position = _varint(data, position)
            yield key >> 3, number
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            yield key >> 3, data[position : position + length]
            position += length
        else:
            raise ValueError("the expression's tree has an unknown wire type")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7


def _bytes(value: Field) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("the expression's tree has a number where a message belongs")


def _text(value: Field) -> str:
    return _bytes(value).decode("utf-8", "replace")


_NOTHING = Literal(None)


def _node(data: bytes) -> Node:
    for number, value in _fields(data):
        if number == 2:
            continue  # the node's id
        message = _bytes(value)
        if number == 3:
            return Literal(_constant(message))
        if number == 4:
            return Name(next((_text(v) for n, v in _fields(message) if n == 1), "").lstrip("."))
        if number == 5:
            return _select(message)
        if number == 6:
            return _call(message)
        if number == 7:
            return Build(tuple(_node(_bytes(v)) for n, v in _fields(message) if n == 1))
        if number == 8:
            return _struct(message)
        if number == 9:
            return _loop(message)
    return _NOTHING


def _constant(data: bytes) -> Scalar:
    for number, value in _fields(data):
        if isinstance(value, int):
            if number == 2:
                return value != 0
            if number == 3 and value >= 1 << 63:
                return value - (1 << 64)
            return None if number == 1 else value
        if number == 5:
            double: float = struct.unpack("<d", value)[0]
            return double
        if number == 6:
            return value.decode("utf-8", "replace")
        if number == 7:
            return value
    return None


def _select(data: bytes) -> Select:
    operand: Node = _NOTHING
    field, test = "", False
    for number, value in _fields(data):
        if number == 1:
            operand = _node(_bytes(value))
        elif number == 2:
            field = _text(value)
        elif number == 3:
            test = bool(value)
    return Select(operand, field, test)


def _call(data: bytes) -> Call:
    function = ""
    arguments: list[Node] = []
    for number, value in _fields(data):
        if number == 1:
            arguments.insert(0, _node(_bytes(value)))
        elif number == 2:
            function = _text(value)
        elif number == 3:
            arguments.append(_node(_bytes(value)))
    return Call(function, tuple(arguments))


def _struct(data: bytes) -> Build:
    keys: list[Node] = []
    elements: list[Node] = []
    for number, value in _fields(data):
        if number == 2:
            for inner, part in _fields(_bytes(value)):
                if inner == 3:
                    keys.append(_node(_bytes(part)))
                elif inner == 4:
                    elements.append(_node(_bytes(part)))
    return Build(tuple(elements), tuple(keys))


def _loop(data: bytes) -> Loop:
    names: dict[int, str] = {}
    nodes: dict[int, Node] = {}
    for number, value in _fields(data):
        if number in (1, 3):
            names[number] = _text(value)
        elif number != 8:
            nodes[number] = _node(_bytes(value))
    return Loop(
        variable=names.get(1, ""),
        source=nodes.get(2, _NOTHING),
        accumulator=names.get(3, ""),
        start=nodes.get(4, _NOTHING),
        condition=nodes.get(5, _NOTHING),
        step=nodes.get(6, _NOTHING),
        result=nodes.get(7, _NOTHING),
    )


def free_paths(tree: Node) -> frozenset[tuple[str, ...]]:
    """The paths by which the tree reaches variables of its scope, each as long as it is fixed.

    `tasks.a.output.rows[0].id` gives `("tasks", "a", "output", "rows")`; `inputs["x-y"].z` gives
    `("inputs", "x-y", "z")`; what a comprehension binds is not of the scope.
    """
    found: set[tuple[str, ...]] = set()
    _collect(tree, frozenset(), found)
    return frozenset(found)


def fixed_path(node: Node) -> tuple[str, ...] | None:
    """The variable and keys that the node selects by, where all of them stand in the expression."""
    if isinstance(node, Name):
        return (node.name,)
    if isinstance(node, Select):
        path = fixed_path(node.operand)
        return None if path is None else (*path, node.field)
    if isinstance(node, Call) and node.function == "_[_]":
        key = node.arguments[1]
        if isinstance(key, Literal) and isinstance(key.value, str):
            path = fixed_path(node.arguments[0])
            return None if path is None else (*path, key.value)
    return None


def _collect(node: Node, bound: frozenset[str], found: set[tuple[str, ...]]) -> None:
    path = fixed_path(node)
    if path is not None:
        if path[0] not in bound:
            found.add(path)
    elif isinstance(node, Select):
        _collect(node.operand, bound, found)
    elif isinstance(node, Call):
        for argument in node.arguments:
            _collect(argument, bound, found)
    elif isinstance(node, Build):
        for part in (*node.keys, *node.elements):
            _collect(part, bound, found)
    elif isinstance(node, Loop):
        _collect(node.source, bound, found)
        _collect(node.start, bound, found)
        inner = bound | {node.variable, node.accumulator}
        _collect(node.condition, inner, found)
        _collect(node.step, inner, found)
        _collect(node.result, bound | {node.accumulator}, found)
