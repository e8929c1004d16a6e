"""CEL expressions: compiled once, checked for the names they use, evaluated within bounds.

A plain path (`tasks.a.output.rows[0].id`) is evaluated without CEL, with CEL's meaning; anything else
by Google's CEL, given only the parts of the scope that the expression names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from ..errors import AttemptError
from . import functions
from .costs import ALTERNATIVE, MAX_ITERATIONS, Estimate, TooMuchWork, is_light
from .scope import ROOTS, Scope
from .syntax import Build, Call, Node, Select, fixed_path, free_paths, read_tree
from .values import MAX_DEPTH, MAX_INTEGER, as_timestamp

MAX_LENGTH = 4096  # characters
_CACHED = 8192  # compiled expressions kept, about 3 kB each
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
_STEP = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_]*)|\[(?:([0-9]{1,9})|"([^"\\\n]*)"|'([^'\\\n]*)')\]""")
_ROOT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = frozenset(("true", "false", "null", "in"))
_TEXT = re.compile(r"'([^'\\\n]*)'|\"([^\"\\\n]*)\"")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_PLACE = re.compile(r"<input>:(-?\d+):(-?\d+): (.*)")
_ABSENT: Final = object()


class ExpressionProblem(ValueError):
    """The expression does not compile. `name` is the undeclared name, where that is why, and no function's; `known` are
    those that could stand there."""

    def __init__(self, message: str, *, name: str | None = None, known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.known = known


class ExpressionError(AttemptError):
    """An expression failed when it was evaluated: the attempt is `invalid` and is not retried.

    `expression` and `path` (a JSON Pointer into the definition, where known) say which; neither they
    nor the message hold a secret's value.
    """

    def __init__(self, reason: str, expression: str, path: str = "") -> None:
        shown = expression if len(expression) <= 200 else expression[:200] + "..."
        super().__init__(
            f"{{{{ {shown} }}}}{f' at {path}' if path else ''}: {reason}",
            kind="invalid",
            details={"expression": shown, "reason": reason, **({"path": path} if path else {})},
        )
        self.reason = reason
        self.expression = expression
        self.path = path

    def at(self, path: str) -> ExpressionError:
        """The same error, with its place."""
        return ExpressionError(self.reason, self.expression, path)


class Expression:
    """A compiled expression. Made by `compile_expression`; shared, so it knows no place."""

    __slots__ = ("_is_light", "_needs", "_path", "_program", "_tree", "paths", "source", "tasks", "uses_secrets")

    def __init__(self, source: str, paths: frozenset[tuple[str, ...]]) -> None:
        self.source = source
        self.paths = paths
        """What it reaches in the scope, as `syntax.free_paths` gives it."""
        self.tasks = frozenset(path[1] for path in paths if path[0] == "tasks" and len(path) > 1)
        """The tasks that it names."""
        self.uses_secrets = any(path[0] == "secrets" for path in paths)
        self._path: tuple[str | int, ...] | None = None
        self._program: cel.Expression = None
        self._tree: Node | None = None
        self._is_light = True
        self._needs: dict[str, Any] = {}

    def names(self, root: str) -> frozenset[str]:
        """What it names right below that root, such as the inputs below `inputs`."""
        return frozenset(path[1] for path in self.paths if path[0] == root and len(path) > 1)

    @property
    def is_fixed(self) -> bool:
        """Whether it reaches nothing in the scope and takes little to evaluate."""
        return not self.paths and self._is_light

    @property
    def may_be_boolean(self) -> bool:
        """Whether its value may be true or false, as far as CEL tells before it is evaluated."""
        return self._program is None or self._program.return_type() in (cel.Type.BOOL, cel.Type.DYN)

    @property
    def path(self) -> tuple[str | int, ...] | None:
        """The path that it is, however it is written; None where it is more than a path."""
        if self._tree is None or (isinstance(self._tree, Select) and self._tree.test):
            return self._path
        return fixed_path(self._tree)

    def evaluate(self, scope: Scope) -> Any:
        """The expression's value in that scope, as JSON data. Raises ExpressionError."""
        try:
            if self._path is not None:
                return self._follow(scope, self._path)
            return self._run(scope)
        except ExpressionError:
            raise
        except LookupError as problem:
            raise ExpressionError(str(problem.args[0] if problem.args else problem), self.source) from None

    def _follow(self, scope: Scope, path: tuple[str | int, ...]) -> Any:
        root = path[0]
        start = 1
        if root == "tasks":
            value: Any = scope.task(path[1])  # type: ignore[arg-type] # the compiler saw to it that it is a name
            start = 2
        elif root == "secrets":
            return scope.secret(path[1])  # type: ignore[arg-type] # likewise
        else:
            value = scope.values.get(root, _ABSENT)  # type: ignore[arg-type] # likewise
            if value is _ABSENT:
                raise LookupError(f"{root} is not in scope here")
        for key in path[start:] if len(path) > start else ():
            if isinstance(value, Mapping):
                if key not in value:
                    raise ExpressionError(_no_key(key), self.source)
                value = value[key]
            elif isinstance(value, list | tuple):
                if type(key) is not int:
                    raise ExpressionError(f"a list has no field {key!r}; use an index such as [0]", self.source)
                if key >= len(value):
                    raise ExpressionError(f"index {key} is out of range: the list has {len(value)} items", self.source)
                value = value[key]
            else:
                raise ExpressionError(_no_field(key, value), self.source)
        return value

    def _run(self, scope: Scope) -> Any:
        values = self._bind(scope)
        if not self._is_light and self._tree is not None:
            try:
                Estimate(values).check(self._tree)
            except TooMuchWork:
                raise ExpressionError(
                    "it would compute for more than about a second with these values (comprehensions are quadratic: "
                    f"a list of up to 4,000 items is fine); {ALTERNATIVE}",
                    self.source,
                ) from None
        try:
            result = self._program.eval(data=values)
            if result.type() == cel.Type.ERROR:
                raise ExpressionError(self._explain(str(result.plain_value())), self.source)
            if self._path is None and result.type() == cel.Type.TYPE:
                raise ExpressionError("the result is a type, which is not JSON; use string(type(...))", self.source)
            plain = result.plain_value()
        except (RuntimeError, ValueError, TypeError, OverflowError) as problem:  # the binding's own
            raise ExpressionError(self._explain(str(problem)), self.source) from None
        return self._to_json(plain, 0)

    def _bind(self, scope: Scope) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        for root, needs in self._needs.items():
            if root == "tasks":
                bound[root] = {name: _prune(scope.task(name), inner) for name, inner in needs.items()}
            elif root == "secrets":
                bound[root] = {name: scope.secret(name) for name in needs}
            else:
                value = scope.values.get(root, _ABSENT)
                if value is _ABSENT:
                    raise LookupError(f"{root} is not in scope here")
                bound[root] = _prune(value, needs)
        return bound

    def _explain(self, text: str) -> str:
        if self.uses_secrets:
            return "it failed; the reason is withheld because the expression uses a secret"
        kind, _, reason = text.partition(": ")
        reason = (reason or kind).split("\n")[0].strip()
        if "Key not found" in reason:
            return _no_key(reason.rpartition(" : ")[2].strip().strip('"'))
        if "Iteration budget" in reason:
            return f"it goes through more than {MAX_ITERATIONS:,} items in all; {ALTERNATIVE}"
        if "No matching overloads" in reason:
            called = reason.rpartition(" : ")[2]
            hint = "; convert with double(), int() or string()" if "double" in called or "string" in called else ""
            return f"{called} does not fit the types of its values{hint}"
        if "SELECT to non-message" in reason:
            return "a field is selected from a value that is not a map (perhaps null); guard it with has() or == null"
        return reason[:300] or "it failed"

    def _to_json(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            if -MAX_INTEGER <= value <= MAX_INTEGER:
                return value
            raise ExpressionError("the result is an integer beyond 2^53; use string(...)", self.source)
        if kind is float:
            if math.isfinite(value):
                return value
            raise ExpressionError("the result is NaN or infinite, which is not JSON", self.source)
        if depth > MAX_DEPTH:
            raise ExpressionError(f"the result is nested deeper than {MAX_DEPTH} levels", self.source)
        if kind is list:
            return [self._to_json(item, depth + 1) for item in value]
        if kind is dict:
            for key in value:
                if type(key) is not str:
                    raise ExpressionError("the keys of a resulting map must be strings; use string(key)", self.source)
            return {key: self._to_json(item, depth + 1) for key, item in value.items()}
        if isinstance(value, datetime):
            return as_timestamp(value)
        if isinstance(value, timedelta):
            return _duration(value)
        what = "bytes" if isinstance(value, bytes | bytearray) else f"a {kind.__name__}"
        raise ExpressionError(f"the result is or holds {what}, which is not JSON", self.source)


def _duration(value: timedelta) -> str:
    micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    fraction = f".{micros % 1_000_000:06d}".rstrip("0") if micros % 1_000_000 else ""
    return f"{sign}{micros // 1_000_000}{fraction}s"


def _no_key(key: str | int) -> str:
    shown = str(key)
    return f"there is no key {shown[:100]!r}; guard it with has(...) or check the value before it"


def _no_field(key: str | int, value: Any) -> str:
    kind = "null" if value is None else {bool: "a boolean", str: "a string"}.get(type(value), "a number")
    return f"the value before {key!r} is {kind}, not a map or list"


def _prune(value: Any, needs: Mapping[str, Any]) -> Any:
    """The part of the value that is needed; an empty `needs` is all of it."""
    if not needs or not isinstance(value, Mapping):
        return value
    return {key: _prune(value[key], inner) for key, inner in needs.items() if key in value}


def _needs(paths: frozenset[tuple[str, ...]]) -> dict[str, Any]:
    """The paths as a tree of keys; where one ends, all that is below is needed (an empty dict)."""
    root: dict[str, Any] = {}
    whole: set[tuple[str, ...]] = set()
    for path in sorted(paths, key=len):
        if any(path[:length] in whole for length in range(1, len(path))):
            continue
        whole.add(path)
        node = root
        for key in path:
            node = node.setdefault(key, {})
    return root


@lru_cache(maxsize=16)
def _environment(roots: tuple[str, ...]) -> cel.Env:
    return cel.NewEnv(variables=dict.fromkeys(roots, cel.Type.DYN), functions=functions.declarations())


@lru_cache(maxsize=_CACHED)
def compile_expression(source: str, roots: tuple[str, ...] = ROOTS) -> Expression:
    """The expression compiled, with these names to begin with. Raises ExpressionProblem.

    Which of a root's members exist is the caller's to check, by `Expression.paths`.
    """
    if len(source) > MAX_LENGTH:
        raise ExpressionProblem(f"the expression has {len(source):,} characters; at most {MAX_LENGTH:,} are allowed")
    stripped = source.strip()
    if not stripped:
        raise ExpressionProblem("the expression is empty")
    plain = _plain_path(stripped, roots)
    if plain is not None:
        fixed = tuple(_fixed_part(plain))
        _check_depth(fixed)
        expression = Expression(stripped, frozenset((fixed,)))
        expression._path = plain  # noqa: SLF001 - its own compiler
        return expression
    try:
        program = _environment(roots).compile(stripped)
        tree = read_tree(bytes(program.serialize()))
    except (RuntimeError, ValueError, TypeError) as problem:  # RuntimeError is all that the binding raises
        raise _problem(str(problem), roots) from None
    expression = Expression(stripped, frozenset(path for path in free_paths(tree) if path[0] in roots))
    if expression.uses_secrets and not _keeps_secrets_plain(tree):
        raise ExpressionProblem(
            "a secret can be joined to text with + or chosen with ?:, not computed with: only its plain form is masked"
        )
    for path in expression.paths:
        _check_depth(path)
    expression._program, expression._tree = program, tree  # noqa: SLF001 - its own compiler
    expression._is_light = is_light(tree)  # noqa: SLF001 - its own compiler
    expression._needs = _needs(expression.paths)  # noqa: SLF001 - its own compiler
    return expression


def _keeps_secrets_plain(tree: Node) -> bool:
    """Whether every secret that the tree uses stands in its value as it is, so that it is seen wherever it goes."""
    path = fixed_path(tree)
    if path is not None or not any(path[0] == "secrets" for path in free_paths(tree)):
        return True
    if isinstance(tree, Build):
        return all(_keeps_secrets_plain(part) for part in (*tree.keys, *tree.elements))
    if isinstance(tree, Call) and tree.function == "_+_":
        return all(_keeps_secrets_plain(part) for part in tree.arguments)
    if isinstance(tree, Call) and tree.function == "_?_:_":
        condition, *branches = tree.arguments
        is_free = all(path[0] != "secrets" for path in free_paths(condition))
        return is_free and all(_keeps_secrets_plain(part) for part in branches)
    return False


def code_size(source: str) -> int:
    """What compiling the expression costs, in characters of ordinary code (10 us at the most): two for a plain path."""
    if len(source) > MAX_LENGTH:
        return 1  # it is refused unread
    if _plain_path(source.strip(), ROOTS) is not None:
        return 2
    return max(8, len(source)) + 8 * len(_MACRO.findall(source))


def _check_depth(path: tuple[str, ...]) -> None:
    if path[0] == "tasks" and len(path) < 2:
        raise ExpressionProblem("tasks is used whole; name a task, as in tasks.fetch.output")
    if path[0] == "secrets" and len(path) != 2:
        raise ExpressionProblem("secrets is used whole or beyond its name; write secrets.NAME")


def _plain_path(source: str, roots: tuple[str, ...]) -> tuple[str | int, ...] | None:
    match = _ROOT.match(source)
    if match is None or match.group() not in roots:
        return None
    path: list[str | int] = [match.group()]
    position = match.end()
    while position < len(source):
        step = _STEP.match(source, position)
        if step is None:
            return None
        field, index, double, single = step.groups()
        if field is not None:
            if field in _KEYWORDS:
                return None
            path.append(field)
        else:
            path.append(int(index) if index is not None else double if double is not None else single)
        position = step.end()
    if len(path) > 30:
        return None  # CEL refuses what is nested that deeply
    if path[0] in ("tasks", "secrets") and len(path) > 1 and not isinstance(path[1], str):
        return None
    return tuple(path)


def _fixed_part(path: tuple[str | int, ...]) -> list[str]:
    fixed: list[str] = []
    for key in path:
        if not isinstance(key, str):
            break
        fixed.append(key)
    return fixed


def _problem(text: str, roots: tuple[str, ...]) -> ExpressionProblem:
    undeclared = _UNDECLARED.search(text)
    if undeclared:
        name = undeclared.group(1).partition(".")[0]
        is_call = re.search(rf"\b{re.escape(name)}\s*\(", text) is not None
        known = functions.FUNCTION_NAMES if is_call else roots
        kind = "function" if is_call else "name"
        return ExpressionProblem(
            f"{name!r} is no {kind} that expressions know; there are {', '.join(known)}"
            + (", and CEL's own functions" if is_call else ""),
            name=None if is_call else name,
            known=roots,
        )
    place = _PLACE.search(text)
    if "recursion" in text:
        return ExpressionProblem("the expression is nested too deeply (32 levels); split it into several tasks")
    if place is None:
        return ExpressionProblem(text.partition(": ")[2][:300] or text[:300])
    line, column, reason = place.groups()
    where = f" (line {line}, column {column})" if int(line) > 0 else ""
    reason = reason.partition(" expecting {")[0]
    return ExpressionProblem(f"{reason[:300]}{where}")
