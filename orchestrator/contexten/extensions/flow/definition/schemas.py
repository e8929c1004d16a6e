"""JSON Schemas inside definitions: whether they are ones, and whether data fits them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from ..errors import Issue
from .expressions import ExpressionError, compile_expression
from .findings import Findings, describe
from .model import WorkflowDefinition
from .names import NameGuesser
from .pointers import escape, join
from .scope import Scope
from .templates import has_template
from .values import check_json

_STRUCTURAL = frozenset(("required", "additionalProperties", "minProperties", "maxProperties", "dependentRequired"))
_MAX_MISFITS = 20
_MAX_REFERENCES = 200_000  # followed for one value: 2-4 s, and far beyond what real data needs
_references_left: ContextVar[int] = ContextVar("references_left", default=_MAX_REFERENCES)


class _TooComplex(Exception):
    """The schema's references multiply without end."""


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


# Python's regular expressions can take exponential time, and schemas come from outside: RE2 cannot.
_Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call] # the stubs leave it open
    jsonschema.Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "$ref": _ref,
    },
)


def check_schema(schema: Any, path: str, findings: Findings) -> bool:
    """Report where `schema` is no JSON Schema (2020-12), or refers outside itself."""
    is_fit = True
    for place, pattern in _patterns(schema, path):
        try:
            _matches(pattern, "")
        except ExpressionError:
            is_fit = False
            findings.error(
                place,
                "invalid_schema",
                "the pattern does not compile (RE2 syntax: no look-around, no back references)",
                got=pattern[:200],
            )
    for place, reference in _references(schema, path):
        if not isinstance(reference, str) or not reference.startswith("#"):
            is_fit = False
            findings.error(
                place, "invalid_schema", "a $ref must stay in the schema (start with #)", got=str(reference)[:200]
            )
    if not is_fit:
        return False
    flaw = _flaw(check_json(schema, max_bytes=1 << 24))
    if flaw is not None:
        findings.error(join(path, flaw[0]), "invalid_schema", f"this is no JSON Schema: {flaw[1][:300]}")
        return False
    lost = _lost_references(schema, {str(reference) for _, reference in _references(schema, path)})
    for place, reference in _references(schema, path):
        if str(reference) in lost:
            is_fit = False
            findings.error(place, "invalid_schema", "the $ref leads nowhere in the schema", got=str(reference)[:200])
    return is_fit


@lru_cache(maxsize=512)
def _flaw(schema: str) -> tuple[tuple[str | int, ...], str] | None:
    """Where and why the text is no JSON Schema."""
    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as problem:
        return tuple(problem.absolute_path), problem.message
    except RecursionError:
        return (), "it is nested too deeply"
    return None


def _patterns(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            place = f"{path}/{escape(key)}"
            if key == "pattern" and isinstance(value, str):
                yield place, value
            elif key == "patternProperties" and isinstance(value, dict):
                yield from ((f"{place}/{escape(name)}", name) for name in value)
            if key not in ("const", "enum", "default", "examples"):
                yield from _patterns(value, place)
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from _patterns(value, f"{path}/{index}")


def _references(schema: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and not isinstance(value, dict):
                yield f"{path}/{key}", value
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(value, f"{path}/{escape(key)}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from _references(value, f"{path}/{index}")


def _lost_references(schema: Any, references: set[str]) -> set[str]:
    """Those of the references that lead nowhere."""
    if not references:
        return references
    registry: Registry[Any] = Registry().with_resource("", DRAFT202012.create_resource(schema))
    resolver = registry.resolver("")
    lost: set[str] = set()
    for reference in references:
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError, KeyError, TypeError, AttributeError):
            lost.add(reference)
    return lost


def misfits(schema: Any, data: Any, *, path: str = "", with_templates: bool = False) -> tuple[Issue, ...]:
    """Where the data does not fit the schema (20 places at most), as issues below `path`.

    `with_templates`: strings of the data may hold templates, about whose values nothing is said.
    """
    found: list[Issue] = []
    _references_left.set(_MAX_REFERENCES)
    try:
        for error in _validator(schema).iter_errors(data):
            if with_templates and error.validator not in _STRUCTURAL and has_template(error.instance):
                continue
            found.append(_issue(error, path))
            if len(found) == _MAX_MISFITS:
                break
    except (Unresolvable, RecursionError, _TooComplex):
        message = "the schema cannot be applied: its references go too far"
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
