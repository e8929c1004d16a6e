"""JSON Schemas inside definitions: whether they are ones, and whether data fits them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from ..errors import Issue
from .expressions import ExpressionError, compile_expression
from .findings import MAX_SCHEMA_PARTS, Findings, Steps, describe
from .model import WorkflowDefinition
from .names import NameGuesser
from .pointers import join
from .schemashape import ShapeWalk
from .scope import Scope
from .templates import TOO_MUCH_CODE, has_template
from .values import check_json

_STRUCTURAL = frozenset(("required", "additionalProperties", "minProperties", "maxProperties", "dependentRequired"))
_MAX_MISFITS = 20
_MAX_REFERENCES = 200_000  # followed for one value: 2-4 s, and far beyond what real data needs
_references_left: ContextVar[int] = ContextVar("references_left", default=_MAX_REFERENCES)
_steps_left: ContextVar[Steps | None] = ContextVar("steps_left", default=None)
_OVER_ITEMS = frozenset(
    (
        *("items", "contains", "additionalProperties", "patternProperties", "propertyNames"),
        *("unevaluatedItems", "unevaluatedProperties"),
    )
)
_REPETITION = re.compile(r"(\))?\{(?:[0-9]{0,4},)?([0-9]{1,4})")
_UNICODE_CLASS = re.compile(r"\\[pP]")


class _TooComplex(Exception):
    """The schema's references multiply without end, or it takes too many steps over this value."""


def _matches(pattern: str, text: str) -> bool:
    """Whether the pattern (RE2: linear time, no look-around, no back references) is found in the text."""
    return bool(_MATCH.evaluate(Scope(text=text, pattern=pattern)))


_MATCH = compile_expression("text.matches(pattern)", ("text", "pattern"))


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance[:80]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, schema in patterns.items():
            for key, value in instance.items():
                if _matches(pattern, key):
                    yield from validator.descend(value, schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, extra: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    others = [key for key in instance if key not in named and not any(_matches(pattern, key) for pattern in patterns)]
    if extra is False and others:
        listed = ", ".join(repr(key[:80]) for key in others[:5])
        yield ValidationError(f"additional properties are not allowed ({listed})")
    elif isinstance(extra, dict):
        for key in others:
            yield from validator.descend(instance[key], extra, path=key)


def _ref(validator: Any, reference: Any, instance: Any, schema: Any) -> Any:
    left = _references_left.get() - 1
    if left < 0:
        raise _TooComplex
    _references_left.set(left)
    return jsonschema.Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, schema)


def _counted(keyword: str, check: Any) -> Any:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        steps = _steps_left.get()
        if steps is not None:
            over = instance if keyword in _OVER_ITEMS or keyword == "uniqueItems" else value
            size = len(over) if isinstance(over, dict | list) else 1
            if not steps.take(1 + (size * size // 16 if keyword == "uniqueItems" else size)):
                raise _TooComplex
        return check(validator, value, instance, schema)

    return counted


# Python's regular expressions can take exponential time, and schemas come from outside: RE2 cannot.
_CHECKS = {
    **jsonschema.Draft202012Validator.VALIDATORS,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "$ref": _ref,
}
_Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call] # the stubs leave it open
    jsonschema.Draft202012Validator, {keyword: _counted(keyword, check) for keyword, check in _CHECKS.items()}
)


def check_schema(schema: Any, path: str, findings: Findings) -> bool:
    """Report where `schema` is no JSON Schema (2020-12), or refers outside itself.

    All schemas of a check share one bound on their parts; beyond it one of them is refused as `too_large`.
    """
    before = len(findings.errors)
    walk = ShapeWalk(findings.schema_parts_left)
    targets = _Targets(schema)
    rest = [(schema, path)]
    while rest and not walk.is_cut:
        for kind, place, text in walk.walk(*rest.pop()):
            if kind == "flaw":
                findings.error(place, "invalid_schema", f"this is no JSON Schema: {text}")
            elif kind == "pattern" and not findings.code.admits(text, _pattern_size(text)):
                findings.error(place, "too_large", TOO_MUCH_CODE)
                return False
            elif kind == "pattern" and not _compiles(text):
                findings.error(
                    place,
                    "invalid_schema",
                    "the pattern does not compile (RE2 syntax: no look-around, no back references)",
                    got=text[:200],
                )
            elif kind == "reference":
                found = targets.find(text)
                if isinstance(found, dict | bool):
                    rest.append((found, place))  # the walk knows where it was; this may be a place of its own
                else:
                    why = "leads to no schema in here" if text.startswith("#") else "must stay inside (begin with #)"
                    findings.error(place, "invalid_schema", f"a $ref {why}", got=text[:200])
    findings.schema_parts_left = max(0, walk.parts_left)
    if walk.is_cut:
        findings.error(
            path,
            "too_large",
            f"the JSON Schemas of a definition have at most {MAX_SCHEMA_PARTS:,} parts in all; check less of the data",
        )
    return len(findings.errors) == before


def _pattern_size(pattern: str) -> int:
    """What compiling a regular expression costs, as `code_size` has it: counted repetitions and classes of Unicode are
    written out in full."""
    repeated, others = 1, 0
    for group, count in _REPETITION.findall(pattern):
        if group:
            repeated *= max(1, int(count))
        else:
            others += int(count)
    factor = min(1000, repeated * max(1, others))
    classes = 2000 * len(_UNICODE_CLASS.findall(pattern)) + 4 * (pattern.count(".") + pattern.count("[^"))
    return max(16, len(pattern)) + (len(pattern) + classes) * factor // 10


def _compiles(pattern: str) -> bool:
    try:
        _matches(pattern, "")
    except ExpressionError:
        return False
    return True


class _Targets:
    """What the references in a schema lead to; each is looked up once."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._registry: Registry[Any] | None = None
        self._found: dict[str, Any] = {}

    def find(self, reference: str) -> Any:
        """The schema there; None where there is none."""
        if reference not in self._found:
            self._found[reference] = self._look_up(reference)
        return self._found[reference]

    def _look_up(self, reference: str) -> Any:
        if not reference.startswith("#"):
            return None
        try:
            if self._registry is None:
                self._registry = Registry().with_resource("", DRAFT202012.create_resource(self._schema)).crawl()
            return self._registry.resolver("").lookup(reference).contents
        except (Unresolvable, ValueError, KeyError, TypeError, AttributeError):
            return None


def misfits(
    schema: Any, data: Any, *, path: str = "", with_templates: bool = False, steps: Steps | None = None
) -> tuple[Issue, ...]:
    """Where the data does not fit the schema (20 places at most), as issues below `path`.

    `with_templates`: strings of the data may hold templates, about whose values nothing is said. `steps` bounds the
    work; without it only the references followed are bounded.
    """
    found: list[Issue] = []
    _steps_left.set(steps)
    _references_left.set(_MAX_REFERENCES)
    try:
        for error in _validator(schema).iter_errors(data):
            if with_templates and error.validator not in _STRUCTURAL and has_template(error.instance):
                continue
            found.append(_issue(error, path))
            if len(found) == _MAX_MISFITS:
                break
    except (Unresolvable, RecursionError, _TooComplex):
        message = "the schema cannot be applied: its references go too far, or it takes too many steps over this value"
        found.append(Issue(path=path, code="invalid_schema", message=message))
    except ExpressionError:
        message = "the schema cannot be applied: a pattern does not compile"
        found.append(Issue(path=path, code="invalid_schema", message=message))
    return tuple(found)


def _validator(schema: Any) -> Any:
    return _compiled(check_json(schema, max_bytes=1 << 24))


@lru_cache(maxsize=512)
def _compiled(schema: str) -> Any:
    return _Validator(json.loads(schema))


def _issue(error: ValidationError, path: str) -> Issue:
    place = join(path, error.absolute_path)
    message, suggestion = error.message, None
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []
        unknown = [key for key in error.instance if key not in known]
        suggestion = NameGuesser().nearest(unknown[0], known) if unknown else None
        if suggestion:
            message = f"there is no {unknown[0]!r} here; did you mean {suggestion!r}?"
    if len(message) > 300:
        message = f"{describe(error.instance)} does not fit {error.validator}"
    expected = error.validator_value if not isinstance(error.validator_value, dict) else None
    return Issue(
        path=place,
        code="misfit",
        message=message,
        expected=expected,
        got=describe(error.instance),
        suggestion=suggestion,
    )


def check_inputs(definition: WorkflowDefinition, inputs: Any) -> tuple[dict[str, Any], tuple[Issue, ...]]:
    """The inputs with the defaults of the schema's top-level properties filled in, and what does not fit.

    Without a schema any object is taken. Issue paths lead into the inputs.
    """
    if inputs is None:
        inputs = {}
    if not isinstance(inputs, dict):
        issue = Issue(path="", code="wrong_type", message=f"inputs must be an object, got {describe(inputs)}")
        return {}, (issue,)
    schema = definition.inputs
    filled = dict(inputs)
    if isinstance(schema, dict):
        properties = schema.get("properties")
        for name, part in properties.items() if isinstance(properties, dict) else ():
            if name not in filled and isinstance(part, dict) and "default" in part:
                filled[name] = part["default"]
    if schema is None or schema is True:
        return filled, ()
    return filled, misfits(schema, filled)
