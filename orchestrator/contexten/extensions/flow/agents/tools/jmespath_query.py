"""JMESPath within bounds: a query neither holds the process nor fills its memory.

Evaluation is linear in the data, but for what a query repeats: `[@, @] | [@, @] | ...` doubles it at every stage. So
the most that a query can multiply its data by is worked out from its tree first; what it visits is counted as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError
from jmespath.visitor import Options, TreeInterpreter

MAX_VISITS = 20_000_000  # nodes visited and items copied: some 20 s of a worker thread
MAX_RESULT_WEIGHT = 500_000_000  # weight of the data times what the query may multiply it by
_MAX_JOINED_CHARS = 10 << 20
_SUMS = frozenset({"multi_select_list", "multi_select_dict", "function_expression"})
_ALTERNATIVES = frozenset({"or_expression", "and_expression"})


class QueryError(ValueError):
    """The query is not JMESPath, does not fit the data, or is too much work; the message says which."""


def weigh(value: Any, *, limit: int) -> int:
    """The weight of JSON data, one a value and one for every 16 characters; stops soon after `limit`."""
    weight, rest = 0, [value]
    while rest and weight <= limit:
        current = rest.pop()
        weight += 1
        if isinstance(current, str):
            weight += len(current) >> 4
        elif isinstance(current, dict):
            rest.extend(current.values())
        elif isinstance(current, list):
            rest.extend(current)
    return weight


def check_query(query: str) -> None:
    """Raise QueryError where the query is not JMESPath: its grammar, its functions and how many arguments they get."""
    for node in _nodes(_parse(query)):
        if node["type"] == "function_expression":
            _check_call(node["value"], len(node["children"]))
        elif node["type"] == "slice" and node["children"][2] == 0:
            raise QueryError("the step of a slice cannot be 0")


def run_query(query: str, data: Any) -> Any:
    """What the query finds in the data; null where it finds nothing. Raises QueryError."""
    tree = _parse(query)
    try:
        factor = _factor(tree)
    except RecursionError:
        raise QueryError("it is nested too deeply") from None
    if factor > 1 and factor * weigh(data, limit=MAX_RESULT_WEIGHT // factor) > MAX_RESULT_WEIGHT:
        raise QueryError(
            "it may repeat its data too often: its stages multiply what they select; select less, or split it into "
            "several tasks"
        )
    try:
        return _Interpreter().visit(tree, data)
    except QueryError:
        raise
    except JMESPathError as error:
        raise QueryError(_one_line(error)) from None
    except RecursionError:
        raise QueryError("it is nested too deeply") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise QueryError(f"it does not fit the data ({_one_line(error)})") from None


def _parse(query: str) -> Any:
    try:
        return jmespath.compile(query).parsed
    except JMESPathError as error:
        raise QueryError(_one_line(error)) from None
    except RecursionError:
        raise QueryError("it is nested too deeply") from None


def _nodes(tree: Any) -> Iterator[Any]:
    rest = [tree]
    while rest:
        node = rest.pop()
        yield node
        rest.extend(_children(node))


def _children(node: Any) -> list[Any]:
    """The nodes below a node; a slice has its bounds, numbers or None, where others have nodes."""
    return [child for child in node["children"] if isinstance(child, dict)]


def _check_call(name: str, given: int) -> None:
    known = _Functions.FUNCTION_TABLE.get(name)
    if known is None:
        nearest = get_close_matches(name, _Functions.FUNCTION_TABLE, n=1)
        hint = f"did you mean {nearest[0]}()?" if nearest else f"known: {', '.join(sorted(_Functions.FUNCTION_TABLE))}"
        raise QueryError(f"there is no function {name}(); {hint}")
    signature = known["signature"]
    needed, variadic = len(signature), bool(signature and signature[-1].get("variadic"))
    if given < needed or (given > needed and not variadic):
        plural = "" if needed == 1 else "s"
        least = "at least " if variadic else ""
        raise QueryError(f"{name}() takes {least}{needed} argument{plural}, not {given}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _factor(node: Any) -> int:
    """The most that the query multiplies the data by: a multi-select repeats a value once a member, stages multiply."""
    kind, children = node["type"], _children(node)
    if not children:
        return 1
    if kind == "function_expression" and node["value"] == "map":
        return _product(children)
    if kind in _SUMS:
        return sum(_factor(child) for child in children)
    if kind in _ALTERNATIVES:
        return max(_factor(child) for child in children)
    if kind == "filter_projection":  # the third child is the condition, whose value is dropped
        return max(_product(children[:2]), _factor(children[2]))
    return _product(children)


def _product(nodes: Any) -> int:
    product = 1
    for node in nodes:
        product *= _factor(node)
    return product


class _Functions(functions.Functions):
    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, parts: list[str]) -> str:
        if len(separator) * len(parts) + sum(map(len, parts)) > _MAX_JOINED_CHARS:
            raise QueryError(f"join() would make a text of more than {_MAX_JOINED_CHARS:,} characters")
        return separator.join(parts)


class _Interpreter(TreeInterpreter):
    def __init__(self) -> None:
        super().__init__(Options(custom_functions=_Functions()))
        self._left = MAX_VISITS

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._charge(1)
        return super().visit(node, *args, **kwargs)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        base = self.visit(node["children"][0], value)
        if not isinstance(base, list):
            return None
        merged: list[Any] = []
        for item in base:
            if isinstance(item, list):
                self._charge(len(item))
                merged.extend(item)
            else:
                merged.append(item)
        return merged

    def _charge(self, visits: int) -> None:
        self._left -= visits
        if self._left < 0:
            raise QueryError("it takes too many steps over this data; filter first, or split it into several tasks")
