"""The arguments of a call, checked by us: all that is wrong in one answer, each with its place and the nearest
right value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError
from typing_extensions import override

from contexten.extensions.flow.definition import MAX_S, DuplicateKeys, load_json
from contexten.extensions.flow.definition.pointers import pointer
from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten.extensions.flow.nearest import nearest_name
from contexten_tools.schemas import plain

MALFORMED = "\x00arguments"
"""The key under which a call's arguments arrive when they are no JSON object; no argument can have this name."""

_ANNOTATIONS = frozenset({"title", "description", "default", "examples"})


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    null = {"type": "null"}
    values = {key: part for key, part in schema.items() if key not in _ANNOTATIONS}
    if not values or null in values.get("anyOf", ()):  # it may be null already
        return schema
    return {"anyOf": [values, null], **{key: part for key, part in schema.items() if key in _ANNOTATIONS}}


class Arguments(BaseModel):
    """Base of all tools' arguments: strict types, no unknown names; null counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    exactly_one: ClassVar[tuple[str, ...]] = ()
    """Of these arguments exactly one must be given."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name not in cls.model_fields}

    @override
    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Of what is validated: arguments that may be absent may be null."""
        schema = handler(core_schema)
        told = handler.resolve_ref_schema(schema)
        properties = told.get("properties", {})
        for name in properties.keys() - set(told.get("required", ())):
            properties[name] = _or_null(properties[name])
        return schema


ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case dict():
            return "object"
    return type(value).__name__


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_text(text: str) -> Any:
    try:
        return load_json(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise PydanticCustomError(
            "malformed_json",
            "This text is not JSON: {reason} at line {line}, column {column}.",
            {"reason": error.msg, "line": error.lineno, "column": error.colno},
        ) from None
    except RecursionError:
        raise PydanticCustomError("malformed_json", "This JSON text is nested too deeply to be read.") from None
    except DuplicateKeys as error:
        raise PydanticCustomError("malformed_json", "In this JSON {reason}.", {"reason": str(error)}) from None
    except ValueError as error:
        raise PydanticCustomError(
            "malformed_json", "This text is not JSON: {reason}.", {"reason": str(error)}
        ) from None


def _reader(expected: type[dict[str, Any] | list[Any]], name: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            value = _parse_text(value)
        if not isinstance(value, expected):
            raise PydanticCustomError(
                "wrong_type", "Expected a JSON {name}, got {got}.", {"name": name, "got": _kind(value)}
            )
        return value

    return read


def _integral(value: Any) -> Any:
    """2.0 is an integer in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


JsonObject = Annotated[
    Any,
    BeforeValidator(_reader(dict, "object")),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string", "description": "the same as JSON text"}]}),
]
"""A JSON object, or its text; always an object afterwards."""


def _definition(value: Any) -> Any:
    if not isinstance(value, dict | str):
        raise PydanticCustomError("wrong_type", "Expected a JSON object or its text, got {got}.", {"got": _kind(value)})
    return value


Definition = Annotated[
    Any,
    BeforeValidator(_definition),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string", "description": "the same as JSON text"}]}),
]
"""A workflow definition as it came: the checker of the library reads text too, and says all that is wrong with it."""

JsonArray = Annotated[
    Any,
    BeforeValidator(_reader(list, "array")),
    WithJsonSchema({"type": "array", "items": {"type": "object"}}),
]
"""A JSON array, or its text; always a list afterwards."""

INTEGRAL = BeforeValidator(_integral)
"""Stands last in the annotation of an integer, after its bounds."""

ANY_CASE = BeforeValidator(_lower)
"""Of a word that may be written in any case; it is in lower case afterwards."""

RunId = Annotated[str, Field(min_length=1, max_length=128, examples=["run_01hzy8k3c9w4ab7de2f"])]
FlowId = Annotated[str, Field(min_length=1, max_length=128, examples=["daily-report"])]
TaskName = Annotated[str, Field(min_length=1, max_length=64, examples=["fetch"])]
RunSeconds = Annotated[float, Field(gt=0, le=MAX_S, allow_inf_nan=False)]
Cursor = Annotated[str, Field(min_length=1, max_length=200)]


@cache
def input_schema(model: type[Arguments]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments as clients see it."""
    schema: dict[str, Any] = plain(model.model_json_schema(by_alias=True))
    schema.pop("description", None)
    schema["additionalProperties"] = False
    schema.setdefault("properties", {})
    return schema


_CODES = {
    "missing": "missing_argument",
    "literal_error": "invalid_value",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
    "greater_than": "out_of_range",
    "less_than": "out_of_range",
    "string_too_short": "out_of_range",
    "string_too_long": "out_of_range",
    "finite_number": "out_of_range",
}

# What agents call an argument when they do not look: the other servers' words for the same.
_SYNONYMS = {
    "id": ("run_id", "flow_id"),
    "flow": ("flow_id",),
    "run": ("run_id",),
    "definition": ("workflow_def",),
    "workflow": ("workflow_def",),
    "status": ("status_filter",),
    "state": ("status_filter",),
    "cursor": ("since", "page"),
    "next_page": ("page",),
    "input": ("inputs",),
    "parameters": ("inputs",),
    "timeout": ("timeout_s", "wait_s"),
    "wait": ("wait_s",),
    "operation": ("action",),
    "task_name": ("task",),
}


def _nearest(name: str, known: list[str]) -> str | None:
    for synonym in _SYNONYMS.get(name.lower(), ()):
        if synonym in known:
            return synonym
    return nearest_name(name.lower(), known)


def _shown(value: object) -> Any:
    """The value itself where it is short, else its type."""
    if isinstance(value, str):
        return value if len(value) <= 80 else f"string of {len(value)} characters"
    if value is None or isinstance(value, bool | int | float):
        return value
    return _kind(value)


def _unknown(model: type[Arguments], name: str, value: object, given: Mapping[str, Any]) -> Issue:
    known = list(input_schema(model)["properties"])
    near = _nearest(name, known)
    if near is None:
        suggestion = "leave it out" if known else "it takes no arguments"
        return Issue(
            path=pointer(name),
            code="unknown_argument",
            message=f"There is no argument {name!r}.",
            expected=known,
            got=_shown(value),
            suggestion=suggestion,
        )
    patch = None
    if near not in given:
        patch = [{"op": "move", "from": pointer(name), "path": pointer(near)}]
    return Issue(
        path=pointer(name),
        code="unknown_argument",
        message=f"There is no argument {name!r}; did you mean {near!r}?",
        expected=known,
        got=_shown(value),
        suggestion=near,
        patch=patch,
    )


def _issue(model: type[Arguments], error: ErrorDetails, given: Mapping[str, Any]) -> Issue:
    location = error["loc"]
    name = str(location[0]) if location else ""
    if error["type"] == "extra_forbidden":
        return _unknown(model, name, error["input"], given)
    field = input_schema(model)["properties"].get(name, {})
    expected = {key: value for key, value in field.items() if key not in ("description", "examples")} or None
    if error["type"] == "missing":
        return Issue(
            path=pointer(*location[:1]),
            code="missing_argument",
            message=f"The argument {name!r} is needed.",
            expected=expected,
        )
    kind = error["type"]
    custom = kind in ("malformed_json", "wrong_type")
    code = (
        kind if custom else _CODES.get(kind, "wrong_type" if kind.endswith(("_type", "_parsing")) else "invalid_value")
    )
    got = error["input"]
    suggestion = None
    if code == "invalid_value" and isinstance(got, str) and "enum" in field:
        suggestion = _nearest(got, [str(value) for value in field["enum"]])
    message = error["msg"] if custom else f"The argument {name!r} does not fit: {error['msg'].lower()}."
    return Issue(
        path=pointer(*location[:1]),
        code=code,
        message=message,
        expected=expected,
        got=_shown(got),
        suggestion=suggestion,
    )


def _one_of(model: type[Arguments], given: Mapping[str, Any]) -> Issue | None:
    names = model.exactly_one
    found = [name for name in names if given.get(name) is not None]
    if not names or len(found) == 1:
        return None
    listed = ", ".join(names[:-1]) + f" or {names[-1]}"
    return Issue(
        path="",
        code="missing_argument" if not found else "too_many_arguments",
        message=f"Give exactly one of {listed}" + (f"; {' and '.join(found)} were given." if found else "."),
        expected={"exactly_one_of": list(names)},
        got=found,
    )


def parse(tool: str, model: type[ArgumentsT], given: Mapping[str, Any]) -> ArgumentsT:
    """The arguments of a call to `tool`.

    Raises InvalidArguments with every problem as an Issue whose path points into the arguments.
    """
    issues: list[Issue] = []
    parsed: ArgumentsT | None = None
    if MALFORMED in given:
        issues.append(
            Issue(
                path="",
                code="malformed_json",
                message="The arguments of a call are a JSON object.",
                expected={"type": "object"},
                got=_shown(given[MALFORMED]),
            )
        )
    else:
        try:
            parsed = model.model_validate(dict(given))
        except ValidationError as error:
            seen: set[str] = set()
            for detail in error.errors(include_url=False):
                issue = _issue(model, detail, given)
                if issue.path not in seen:  # a union reports each of its arms
                    seen.add(issue.path)
                    issues.append(issue)
        one_of = _one_of(model, given)
        if one_of is not None:
            issues.append(one_of)
    if parsed is None or issues:
        count = "One argument is" if len(issues) == 1 else f"{len(issues)} arguments are"
        raise InvalidArguments(
            f"{count} wrong in this call to {tool}: " + " ".join(issue.message for issue in issues[:3]),
            next=f"Call {tool} again with the arguments mended as the issues say.",
            issues=issues,
        )
    return parsed
