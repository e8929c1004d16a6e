"""`{{ expression }}` inside strings, and whole trees of parameters with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final

from .expressions import Expression, ExpressionError, ExpressionProblem, code_size, compile_expression
from .findings import MAX_CODE, MAX_ISSUES, CodeBudget
from .functions import MAX_TEXT, as_text
from .pointers import escape
from .scope import ROOTS, Scope

TOO_MUCH_CODE = (
    f"the expressions, queries and patterns of a definition have at most {MAX_CODE:,} characters in all (a plain path "
    "counts for two); split it into sub-flows"
)
_OPEN, _CLOSE = "{{", "}}"


class TemplateProblem(ValueError):
    """A template that cannot be compiled. `path` is its JSON Pointer, `expression` what stands in the braces."""

    def __init__(
        self,
        message: str,
        path: str,
        expression: str = "",
        cause: ExpressionProblem | None = None,
        code: str = "invalid_expression",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.path = path
        self.expression = expression
        self.cause = cause


class TemplateProblems(list[TemplateProblem]):
    """The problems of one definition, and what bounds the work of finding them.

    Once it is full, nothing more is compiled.
    """

    def __init__(self, budget: CodeBudget | None = None) -> None:
        super().__init__()
        self.is_full = False
        self._budget = budget

    def add(self, problem: TemplateProblem) -> None:
        """Take a problem."""
        self.append(problem)
        self.is_full = self.is_full or len(self) > MAX_ISSUES

    def admit(self, source: str, path: str) -> None:
        """Ask before an expression is compiled. Raises TemplateProblem where there is too much to compile."""
        if self._budget is not None and not self._budget.admits(source, code_size(source)):
            self.is_full = True
            raise TemplateProblem(TOO_MUCH_CODE, path, code="too_large")


class Template(ABC):
    """JSON data with expressions in it, compiled."""

    __slots__ = ()
    is_constant = False

    @abstractmethod
    def render(self, scope: Scope) -> Any:
        """The data with every expression evaluated. Raises ExpressionError.

        What holds no template is given out as it is, shared between calls: do not change it.
        """

    @abstractmethod
    def expressions(self) -> Iterator[tuple[str, Expression]]:
        """Every expression in it with the JSON Pointer of its string."""

    def tasks(self) -> frozenset[str]:
        """The tasks that its expressions name."""
        return frozenset(name for _, expression in self.expressions() for name in expression.tasks)

    def secrets(self) -> frozenset[str]:
        """The secrets that its expressions name."""
        return frozenset(name for _, expression in self.expressions() for name in expression.names("secrets"))

    def secrets_by_field(self) -> dict[str, frozenset[str]]:
        """Of a map, the secrets that each of its fields names, of those that name any."""
        return {}

    def test(self, scope: Scope) -> bool:
        """The value as a condition. Raises ExpressionError where it is not true or false."""
        value = self.render(scope)
        if isinstance(value, bool):
            return value
        path, expression = next(self.expressions(), ("", None))
        source = expression.source if expression else as_text(value)
        raise ExpressionError("a condition must be true or false; compare it with something", source, path)


class Constant(Template):
    """Data without templates."""

    __slots__ = ("value",)
    is_constant = True

    def __init__(self, value: Any) -> None:
        self.value: Final = value

    def render(self, scope: Scope) -> Any:
        return self.value

    def expressions(self) -> Iterator[tuple[str, Expression]]:
        return iter(())


class Value(Template):
    """A string that is one template: it keeps its value's type."""

    __slots__ = ("expression", "path")

    def __init__(self, expression: Expression, path: str) -> None:
        self.expression = expression
        self.path = path

    def render(self, scope: Scope) -> Any:
        try:
            return self.expression.evaluate(scope)
        except ExpressionError as problem:
            raise problem.at(self.path) from None

    def expressions(self) -> Iterator[tuple[str, Expression]]:
        yield self.path, self.expression


class Text(Template):
    """A string with templates in it: strings go in as they are, other values as JSON."""

    __slots__ = ("parts", "path")

    def __init__(self, parts: tuple[str | Expression, ...], path: str) -> None:
        self.parts = parts
        self.path = path

    def render(self, scope: Scope) -> str:
        texts: list[str] = []
        left = MAX_TEXT
        for part in self.parts:
            if isinstance(part, str):
                text = part
            else:
                try:
                    text = as_text(part.evaluate(scope))
                except ExpressionError as problem:
                    raise problem.at(self.path) from None
            left -= len(text)
            if left < 0:
                source = part if isinstance(part, str) else part.source
                raise ExpressionError(f"the string would be longer than {MAX_TEXT:,} characters", source, self.path)
            texts.append(text)
        return "".join(texts)

    def expressions(self) -> Iterator[tuple[str, Expression]]:
        for part in self.parts:
            if isinstance(part, Expression):
                yield self.path, part


class Items(Template):
    """A list with templates in it."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[Template, ...]) -> None:
        self.items = items

    def render(self, scope: Scope) -> list[Any]:
        return [item.render(scope) for item in self.items]

    def expressions(self) -> Iterator[tuple[str, Expression]]:
        for item in self.items:
            yield from item.expressions()


class Fields(Template):
    """A map with templates in its values. (Keys are taken as they are.)"""

    __slots__ = ("constants", "fields", "keys")

    def __init__(self, fields: dict[str, Template]) -> None:
        self.keys = tuple(fields)
        self.constants = {key: field.value for key, field in fields.items() if isinstance(field, Constant)}
        self.fields = tuple((key, field) for key, field in fields.items() if not isinstance(field, Constant))

    def render(self, scope: Scope) -> dict[str, Any]:
        rendered = dict.fromkeys(self.keys)
        rendered.update(self.constants)
        for key, field in self.fields:
            rendered[key] = field.render(scope)
        return rendered

    def secrets_by_field(self) -> dict[str, frozenset[str]]:
        return {key: names for key, field in self.fields if (names := field.secrets())}

    def expressions(self) -> Iterator[tuple[str, Expression]]:
        for _, field in self.fields:
            yield from field.expressions()


def has_template(value: Any) -> bool:
    """Whether any string in the JSON data holds a template."""
    if isinstance(value, str):
        return _OPEN in value
    if isinstance(value, dict):
        return any(map(has_template, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_template, value))
    return False


def compile_template(
    value: Any, path: str = "", problems: TemplateProblems | None = None, roots: tuple[str, ...] = ROOTS
) -> Template:
    """JSON data compiled; `path` is its place in the definition, `roots` are the names that expressions may begin with.

    Raises TemplateProblem for the first expression that does not compile, unless `problems` is given to
    collect them (the expression is then left out).
    """
    if isinstance(value, str):
        if _OPEN not in value or (problems is not None and problems.is_full):
            return Constant(value)
        return _compile_string(value, path, problems, roots)
    if isinstance(value, dict):
        fields = {
            key: compile_template(inner, f"{path}/{escape(key)}", problems, roots) for key, inner in value.items()
        }
        return Constant(value) if all(field.is_constant for field in fields.values()) else Fields(fields)
    if isinstance(value, list | tuple):
        items = tuple(compile_template(inner, f"{path}/{index}", problems, roots) for index, inner in enumerate(value))
        return Constant(value) if all(item.is_constant for item in items) else Items(items)
    return Constant(value)


def compile_condition(
    value: Any, path: str = "", problems: TemplateProblems | None = None, roots: tuple[str, ...] = ROOTS
) -> Template:
    """A `when` or `for_each`: an expression with or without braces, or literal data (its templates compiled)."""
    if not isinstance(value, str):
        return compile_template(value, path, problems, roots)
    if problems is not None and problems.is_full:
        return Constant(value)
    text = value.strip()
    try:
        if text.startswith(_OPEN):
            parts = split_template(text, path)
            if len(parts) == 1 and not isinstance(parts[0], str):
                return Value(_compile(parts[0].source, path, problems, roots), path)
        return Value(_compile(text, path, problems, roots), path)
    except TemplateProblem as problem:
        if problems is None:
            raise
        problems.add(problem)
        return Constant(value)


class Source:
    """What stands between two braces, not compiled yet, and where it begins and ends in its string."""

    __slots__ = ("end", "source", "start")

    def __init__(self, source: str, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end


def split_template(text: str, path: str = "") -> list[str | Source]:
    """The string's literal parts and its expressions. Raises TemplateProblem where braces are not closed."""
    parts: list[str | Source] = []
    position = 0
    while True:
        start = text.find(_OPEN, position)
        if start < 0:
            if position < len(text):
                parts.append(text[position:])
            return parts
        if start > position:
            parts.append(text[position:start])
        end = _find_close(text, start + 2)
        if end < 0:
            raise TemplateProblem(
                "'{{' is not closed by '}}'; to write the braces themselves use {{ '{{' }}", path, text[start + 2 :]
            )
        parts.append(Source(text[start + 2 : end], start + 2, end))
        position = end + 2


def _find_close(text: str, position: int) -> int:
    """Where the `}}` stands that ends the expression: not one in a string, nor the end of a map literal."""
    depth = 0
    length = len(text)
    while position < length:
        character = text[position]
        if character in "'\"":
            position = _skip_string(text, position)
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            if depth:
                depth -= 1
            elif text.startswith(_CLOSE, position):
                return position
        position += 1
    return -1


def _skip_string(text: str, position: int) -> int:
    quote = text[position]
    is_raw = position > 0 and text[position - 1] in "rR" and not (position > 1 and text[position - 2].isalnum())
    mark = quote * 3 if text.startswith(quote * 3, position) else quote
    position += len(mark)
    while position < len(text):
        if text[position] == "\\" and not is_raw:
            position += 2
        elif text.startswith(mark, position):
            return position + len(mark)
        else:
            position += 1
    return position


def _compile_string(text: str, path: str, problems: TemplateProblems | None, roots: tuple[str, ...]) -> Template:
    compiled: list[str | Expression] = []
    try:
        for part in split_template(text, path):
            if isinstance(part, str):
                compiled.append(part)
                continue
            try:
                compiled.append(_compile(part.source, path, problems, roots))
            except TemplateProblem as problem:
                if problems is None:
                    raise
                problems.add(problem)
                if problems.is_full:
                    break
    except TemplateProblem as problem:  # braces that are not closed
        if problems is None:
            raise
        problems.add(problem)
        return Constant(text)
    if len(compiled) == 1 and isinstance(compiled[0], Expression):
        return Value(compiled[0], path)
    return Text(tuple(compiled), path)


def _compile(source: str, path: str, problems: TemplateProblems | None, roots: tuple[str, ...]) -> Expression:
    if problems is not None:
        problems.admit(source, path)
    try:
        return compile_expression(source, roots)
    except ExpressionProblem as problem:
        raise TemplateProblem(problem.message, path, source.strip(), problem) from None
