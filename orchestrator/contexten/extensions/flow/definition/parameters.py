"""Parameters of a task against the models of what will take them, templates left aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import Issue
from .catalog import ToolSpec
from .coercion import NO_MEND, coerce, expected_type
from .expressions import code_size
from .findings import Findings, describe, value_at
from .model import FlowParameters, WaitParameters
from .pointers import escape, join
from .schemas import misfits
from .templates import TOO_MUCH_CODE, has_template

_TYPES = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "array": "a list",
    "object": "an object",
    "string": "a string",
}
"""JSON Schema's types in the words of `coerce`."""


def json_names(model: type[BaseModel]) -> dict[str, bool]:
    """The JSON names of the model's fields, and whether each is required."""
    return {field.alias or name: field.is_required() for name, field in model.model_fields.items()}


def check_pipeline(tools: Sequence[ToolSpec], parameters: Mapping[str, Any], path: str, findings: Findings) -> None:
    """Check parameters that go to these tools of ours one after another."""
    if len(tools) == 1 and tools[0].schema is not None:
        check_schema_parameters(tools[0].name, tools[0].schema, parameters, path, findings)
        return
    known = {name: None for tool in tools if tool.parameters for name in json_names(tool.parameters)}
    if tools and all(tool.parameters is not None for tool in tools):
        _unknown(tuple(known), parameters, path, findings, ", ".join(tool.name for tool in tools))
    said: set[tuple[str, str]] = set()
    for place, tool in enumerate(tools):
        for name in tool.code:
            source = parameters.get(name)
            if isinstance(source, str) and not findings.code.admits(source, code_size(source)):
                findings.error(f"{path}/{name}", "too_large", TOO_MUCH_CODE)
                return
        if tool.parameters is not None:
            piped = tool.piped if place else frozenset()
            _fit(tool.parameters, parameters, path, findings, taker=tool.name, piped=piped, said=said)
        if tool.warnings is not None:
            for issue in tool.warnings(parameters):
                findings.warn(f"{path}{issue.path}", issue.code, issue.message, **_rest(issue))


def _rest(issue: Any) -> dict[str, Any]:
    return {"expected": issue.expected, "got": issue.got, "suggestion": issue.suggestion}


def check_schema_parameters(
    taker: str, schema: Mapping[str, Any], parameters: Mapping[str, Any], path: str, findings: Findings
) -> None:
    """Check parameters against the JSON Schema of the tool that takes them; templates stand for any value."""
    properties = schema.get("properties")
    known = tuple(properties) if isinstance(properties, Mapping) else ()
    is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    if is_closed:
        _unknown(known, parameters, path, findings, taker)
    elif known and "additionalProperties" not in schema and "patternProperties" not in schema:
        _doubt(known, parameters, path, findings, taker)
    for name in schema.get("required", ()):
        if name not in parameters:
            findings.error(path, "missing_parameter", f"{taker} needs the parameter {name!r}", expected=name)
    told = {"required", "additionalProperties"} if is_closed else {"required"}
    rest = {key: value for key, value in schema.items() if key not in told}
    own = {name: value for name, value in parameters.items() if not is_closed or name in known}
    for issue in misfits(rest, own, path=path, with_templates=True, steps=findings.schema_steps):
        findings.error(
            issue.path,
            "invalid_parameters",
            f"{taker}: {issue.message}",
            expected=issue.expected,
            got=issue.got,
            suggestion=issue.suggestion,
            patch=_mend(issue, parameters, path),
        )


def _mend(issue: Issue, parameters: Mapping[str, Any], path: str) -> list[dict[str, Any]] | None:
    """The patch that makes a parameter's value the type that is expected, where that is mechanical."""
    if "not of type" not in issue.message:
        return None
    name = issue.path.removeprefix(f"{path}/").replace("~1", "/").replace("~0", "~")
    wanted = issue.expected if isinstance(issue.expected, list | tuple) else [issue.expected]
    words = [_TYPES[kind] for kind in wanted if isinstance(kind, str) and kind in _TYPES]
    mend = coerce(parameters[name], words) if name in parameters and words else NO_MEND
    return None if mend is NO_MEND else [{"op": "replace", "path": issue.path, "value": mend}]


def _doubt(known: tuple[str, ...], parameters: Mapping[str, Any], path: str, findings: Findings, taker: str) -> None:
    """Warn of parameters that a schema neither names nor refuses: servers drop them in silence."""
    absent = [name for name in known if name not in parameters]
    for name in parameters:
        if name not in known:
            near = findings.guesser.nearest(name, absent)
            place = f"{path}/{escape(name)}"
            findings.warn(
                place,
                "unknown_parameter",
                f"{taker} names no parameter {name[:80]!r}; "
                + (f"did you mean {near!r}?" if near else "it may be dropped"),
                expected=list(known),
                suggestion=near,
                patch=[{"op": "move", "from": place, "path": f"{path}/{escape(near)}"}] if near else None,
            )


def check_part(model: type[BaseModel], given: Mapping[str, Any], path: str, findings: Findings, *, taker: str) -> None:
    """Check an object within the parameters against the model that it is to fit."""
    _unknown(tuple(json_names(model)), given, path, findings, taker)
    _fit(model, given, path, findings, taker=taker)


def check_wait(parameters: Mapping[str, Any], path: str, findings: Findings) -> None:
    """Check the parameters of a task of type wait."""
    _unknown(tuple(WaitParameters.model_fields), parameters, path, findings, "wait")
    _fit(WaitParameters, parameters, path, findings, taker="wait")
    given = [name for name in ("seconds", "until") if parameters.get(name) is not None]
    if len(given) != 1:
        findings.error(
            path,
            "invalid_parameters",
            "wait takes either seconds or until" + (", not both" if given else ""),
            expected={"seconds": "a number", "until": "an ISO 8601 time"},
        )
    until = parameters.get("until")
    if isinstance(until, str) and not has_template(until):
        try:
            moment = datetime.fromisoformat(until)
        except ValueError:
            findings.error(
                f"{path}/until",
                "invalid_parameters",
                "until is an ISO 8601 time such as 2030-01-31T09:00:00Z",
                got=until[:100],
            )
        else:
            if moment.tzinfo is None:
                better = f"{moment.isoformat()}Z"
                findings.error(
                    f"{path}/until",
                    "invalid_parameters",
                    "until needs an offset from UTC, or Z",
                    got=until[:100],
                    suggestion=better,
                )


def check_flow_parameters(parameters: Mapping[str, Any], path: str, findings: Findings) -> None:
    """Check the shape of the parameters of a task of type flow."""
    _unknown(tuple(FlowParameters.model_fields), parameters, path, findings, "flow")
    _fit(FlowParameters, parameters, path, findings, taker="flow")
    flow_id = parameters.get("flow_id")
    if isinstance(flow_id, str) and has_template(flow_id):
        findings.error(
            f"{path}/flow_id",
            "invalid_parameters",
            "flow_id is literal: the flow it starts is checked now",
            got=flow_id,
        )
    inputs = parameters.get("inputs")
    if isinstance(inputs, str) and not has_template(inputs):
        findings.error(f"{path}/inputs", "wrong_type", "expected an object or a template", got=describe(inputs))


def _unknown(known: tuple[str, ...], parameters: Mapping[str, Any], path: str, findings: Findings, takers: str) -> None:
    absent = [name for name in known if name not in parameters]
    meant = {name: findings.guesser.nearest(name, absent) for name in parameters if name not in known}
    is_plain = None not in meant.values() and len(set(meant.values())) == len(meant)  # else what was meant is a guess
    for name, near in meant.items():
        place = f"{path}/{escape(name)}"
        patch = None
        if near:
            hint = f"; did you mean {near!r}?"
            patch = [{"op": "move", "from": place, "path": f"{path}/{escape(near)}"}] if is_plain else None
        else:
            hint = f"; it takes {', '.join(known)}" if known else "; it takes none"
        findings.error(
            place,
            "unknown_parameter",
            f"{takers} takes no parameter {name[:80]!r}{hint}",
            expected=list(known),
            suggestion=near,
            patch=patch,
        )


def _fit(
    model: type[BaseModel],
    parameters: Mapping[str, Any],
    path: str,
    findings: Findings,
    *,
    taker: str,
    piped: frozenset[str] = frozenset(),
    said: set[tuple[str, str]] | None = None,
) -> None:
    """Validate what of the parameters is the model's; `said` holds what was reported before, for another tool."""
    said = set() if said is None else said
    names = json_names(model)
    own = {name: value for name, value in parameters.items() if name in names}
    try:
        model.model_validate(own)
    except ValidationError as problem:
        errors = problem.errors(include_url=False)
    else:
        return
    is_open = any(name in piped and name not in own for name in names) or has_template(own)
    places: dict[str, tuple[Any, list[Any]]] = {}
    for error in errors:
        location = error["loc"]
        if error["type"] == "missing" and len(location) == 1:
            name = str(location[0])
            if name not in piped and (name, "missing") not in said and name not in own:
                said.add((name, "missing"))
                findings.error(
                    path,
                    "missing_parameter",
                    f"{taker} needs the parameter {name!r}",
                    expected=name,
                )
            continue
        tokens, value = value_at(own, location)
        if not tokens:
            if not is_open:
                message = str(error["msg"]).removeprefix("Value error, ")
                findings.error(path, "invalid_parameters", f"{taker}: {message[:300]}")
            continue
        if has_template(value):
            continue
        places.setdefault(join(path, tokens), (value, []))[1].append(error)
    for where, (value, found) in places.items():
        types = list(dict.fromkeys(kind for error in found if (kind := expected_type(error["type"]))))
        key = (where, " or ".join(types))
        if key in said:
            continue
        said.add(key)
        mend = coerce(value, types) if types else NO_MEND
        message = f"expected {' or '.join(types)}, got {describe(value)}" if types else str(found[0]["msg"])[:300]
        findings.error(
            where,
            "wrong_type" if types else "invalid_parameters",
            f"{taker}: {message.removeprefix('Value error, ')}",
            expected=" or ".join(types) or None,
            got=describe(value),
            suggestion=None if mend is NO_MEND or isinstance(mend, dict | list) else str(mend),
            patch=None if mend is NO_MEND else [{"op": "replace", "path": where, "value": mend}],
        )
