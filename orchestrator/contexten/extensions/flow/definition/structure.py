"""The shape of a definition: unknown and missing fields, wrong types, each with the mend that is plain.

A broken definition is mended in a copy as far as it goes, so that the rest of the checker can say at
the same time what else is wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .coercion import NO_MEND, coerce, expected_type
from .findings import Findings, TooManyIssues, describe, value_at
from .model import (
    DEFINITION,
    Cache,
    Part,
    Retry,
    Stage,
    StageTask,
    Task,
    WorkflowDefinition,
)
from .names import make_identifier
from .naming import named_stages, named_tasks
from .pointers import lookup, pointer

Tokens = tuple[str | int, ...]

_MAX_ERRORS = 1000  # in one round; with more of them nothing else is looked at
_ROUNDS = 6  # of mending: each uncovers what was hidden by the one before
_PARTS = ("stages", "tasks", "on_failure")
_INNER: dict[tuple[type[Part], str | int], type[Part]] = {
    (WorkflowDefinition, "stages"): Stage,
    (WorkflowDefinition, "on_failure"): Task,
    (Stage, "tasks"): StageTask,
    (StageTask, "on_failure"): Task,
    (StageTask, "retry"): Retry,
    (Task, "retry"): Retry,
    (StageTask, "cache"): Cache,
    (Task, "cache"): Cache,
}
_STAND_INS: dict[str | int, Any] = {"key": "unreadable", "ttl_s": 1.0}  # of a cache, so that the rest can be read
_SYNONYMS = {
    "dependencies": "depends_on",
    "needs": "depends_on",
    "after": "depends_on",
    "requires": "depends_on",
    "tool": "required_tools",
    "tools": "required_tools",
    "params": "parameters",
    "args": "parameters",
    "arguments": "parameters",
    "inputs": "parameters",
    "condition": "when",
    "if": "when",
    "loop": "for_each",
    "foreach": "for_each",
    "items": "for_each",
    "agent_type": "preferred_agent_type",
    "mode": "execution_mode",
    "execution": "execution_mode",
    "retries": "retry",
    "timeout": "timeout_s",
    "timeout_seconds": "timeout_s",
    "concurrency": "max_parallel",
    "steps": "tasks",
    "title": "name",
    "input_schema": "inputs",
    "outputs": "output",
    "delay": "delay_s",
    "attempts": "max_attempts",
    "max_tries": "max_attempts",
    "backoff_factor": "backoff",
    "max_delay": "max_delay_s",
    "ttl": "ttl_s",
    "ttl_seconds": "ttl_s",
    "on_error": "on_failure",
    "compensation": "on_failure",
    "compensate": "on_failure",
    "rollback": "on_failure",
    "undo": "on_failure",
    "catch": "on_failure",
}


def read_structure(document: dict[str, Any], findings: Findings) -> WorkflowDefinition | None:
    """The definition, mended in place where it was broken; None where too little of it is left.

    `document` is the checker's own copy of JSON data, and is changed. What was wrong is in `findings`.
    """
    mender = _Mender(document, findings)
    for _ in range(_ROUNDS):
        try:
            return DEFINITION.validate_python(document)
        except ValidationError as problem:
            errors = problem.errors(include_url=False, include_input=False)
        for tokens, details in _merge(document, errors[:_MAX_ERRORS]):
            mender.mend(tokens, details)
        if len(errors) > _MAX_ERRORS:
            raise TooManyIssues
        if not isinstance(document.get("stages"), list):
            return None
    return None


def _merge(document: Any, errors: Sequence[ErrorDetails]) -> list[tuple[Tokens, list[ErrorDetails]]]:
    """Errors by place: what a union's members say is one problem. Missing fields come last."""
    places: dict[Tokens, list[ErrorDetails]] = {}
    for error in errors:
        location = error["loc"]
        if error["type"] == "missing":
            place = (*value_at(document, location[:-1])[0], location[-1])
        else:
            place = value_at(document, location)[0]
        places.setdefault(place, []).append(error)
    return sorted(places.items(), key=lambda place: place[1][0]["type"] == "missing")  # a rename may fill the gap


def _part_of(tokens: Tokens) -> type[Part] | None:
    """The model of the object that holds the place."""
    part: type[Part] | None = WorkflowDefinition
    for key in tokens[:-1]:
        if part is not None and not isinstance(key, int):
            part = _INNER.get((part, key))
    return part


class _Mender:
    def __init__(self, document: dict[str, Any], findings: Findings) -> None:
        self._document = document
        self._findings = findings
        self._taken = _names(document)

    def mend(self, tokens: Tokens, errors: list[ErrorDetails]) -> None:
        """Report one place and mend the copy there, or clear it so that the rest can be read."""
        kinds = {error["type"] for error in errors}
        if kinds == {"missing"}:
            self._missing(tokens)
        elif "extra_forbidden" in kinds:
            self._unknown(tokens)
        else:
            self._wrong(tokens, errors)

    def _holder(self, tokens: Tokens) -> Any:
        try:
            return lookup(self._document, tokens[:-1])
        except (LookupError, TypeError):
            return None

    def _missing(self, tokens: Tokens) -> None:
        holder, path = self._holder(tokens), pointer(*tokens[:-1])
        field = str(tokens[-1])
        if not isinstance(holder, dict) or field in holder:
            return
        patch: list[dict[str, Any]] | None = None
        if field == "name":
            kind = "stage" if tokens[-3] == "stages" else "task"
            name = make_identifier(f"{kind}_{int(tokens[-2]) + 1}", self._taken)
            self._taken.add(name)
            patch = [{"op": "add", "path": pointer(*tokens), "value": name}]
            holder["name"] = name
            self._findings.placeholders.add(name)
        elif field in _STAND_INS:
            holder[field] = _STAND_INS[field]
        self._findings.error(path, "missing_field", f"the field {field!r} is missing", expected=field, patch=patch)

    def _unknown(self, tokens: Tokens) -> None:
        holder, path, field = self._holder(tokens), pointer(*tokens), str(tokens[-1])
        if not isinstance(holder, dict) or field not in holder:
            return
        model = _part_of(tokens)
        value = holder.pop(field)
        patch: list[dict[str, Any]] | None
        if field in ("tasks", "steps") and model is WorkflowDefinition and "stages" not in holder:
            self._put_in_stage(field, value, path)
            return
        known = [] if model is None else [name for name in model.model_fields if name not in holder]
        near = _SYNONYMS.get(field.casefold().replace("-", "_"))
        if near not in known:
            near = self._findings.guesser.nearest(field, known)
        if near is None:
            allowed = ", ".join(model.model_fields) if model else None
            patch = [{"op": "remove", "path": path}] if value in (None, "", [], {}) else None
            self._findings.error(
                path, "unknown_field", f"there is no field {field!r} here", expected=allowed, patch=patch
            )
            return
        target = pointer(*tokens[:-1], near)
        moved = [target]
        patch = [{"op": "move", "from": path, "path": target}]
        if near in ("required_tools", "depends_on", "tags") and isinstance(value, str):
            value = [value]
            moved.append(f"{target}/0")
            patch.append({"op": "replace", "path": target, "value": value})
        elif near == "retry" and type(value) is int:
            value = {"max_attempts": max(1, value + 1)}
            moved.append(f"{target}/max_attempts")
            patch.append({"op": "replace", "path": target, "value": value})
        holder[near] = copy.deepcopy(value)
        self._findings.error(
            path,
            "unknown_field",
            f"there is no field {field!r} here; did you mean {near!r}?",
            suggestion=near,
            patch=patch,
        )
        for copied in moved:
            self._findings.move(copied, path)

    def _put_in_stage(self, field: str, value: Any, path: str) -> None:
        tasks = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        patch: list[dict[str, Any]] = [
            {"op": "add", "path": "/stages", "value": [{"name": "main"}]},
            {"op": "move", "from": path, "path": "/stages/0/tasks"},
        ]
        if not isinstance(value, list):
            patch.append({"op": "replace", "path": "/stages/0/tasks", "value": tasks})
        self._findings.error(
            path,
            "unknown_field",
            f"{field} stand in a stage: the definition needs stages",
            suggestion="stages",
            patch=patch if tasks else None,
        )
        own = copy.deepcopy(tasks) or [{"name": self._placeholder()}]
        self._document["stages"] = [{"name": "main", "tasks": own}]
        for copied in ("/stages", "/stages/0", "/stages/0/tasks"):  # the longest is looked at first
            self._findings.move(copied, path)

    def _wrong(self, tokens: Tokens, errors: list[ErrorDetails]) -> None:
        value = lookup(self._document, tokens)
        types = list(dict.fromkeys(name for error in errors if (name := expected_type(error["type"]))))
        path = pointer(*tokens)
        if types and len(types) == len({error["type"] for error in errors}):
            expected = " or ".join(types)
            if tokens[-1] == "name":
                mend = self._name_of(value, tokens)
            else:
                is_part = isinstance(tokens[-1], int) and "an object" in types
                is_list_of_parts = tokens[-1] in _PARTS and not isinstance(value, dict)  # text or null is no part
                is_code = tokens[-1] in ("when", "for_each")  # a number as text is no condition and no list
                wanted = [name for name in types if name != "a string"] if is_code else types
                mend = NO_MEND if is_part or is_list_of_parts else coerce(value, wanted)
            if mend is NO_MEND and value is None and not self._is_required(tokens):
                patch = [{"op": "remove", "path": path}]
            else:
                patch = [] if mend is NO_MEND else [{"op": "replace", "path": path, "value": mend}]
            message = f"expected {expected}, got {describe(value)}"
            code = "wrong_type"
        else:
            error = next((error for error in errors if not expected_type(error["type"])), errors[0])
            expected, mend, message = self._value_problem(error, value)
            code = "invalid_value"
            patch = [] if mend is NO_MEND else [{"op": "replace", "path": path, "value": mend}]
        self._findings.error(
            path,
            code,
            message,
            expected=expected,
            got=value if isinstance(value, str | int | float | bool) and len(str(value)) <= 100 else describe(value),
            suggestion=str(mend) if mend is not NO_MEND and not isinstance(mend, dict | list) else None,
            patch=patch or None,
        )
        self._settle(tokens, value, mend)

    def _value_problem(self, error: ErrorDetails, value: Any) -> tuple[Any, Any, str]:
        if error["type"] == "literal_error":
            expected = str(error.get("ctx", {}).get("expected", ""))
            choices = [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]
            near = self._findings.guesser.nearest(value, choices) if isinstance(value, str) else None
            hint = f"; did you mean {near!r}?" if near else ""
            return choices, NO_MEND if near is None else near, f"expected {expected}, got {describe(value)}{hint}"
        return None, NO_MEND, f"{error['msg'][:1].lower()}{error['msg'][1:]}"

    def _name_of(self, value: Any, tokens: Tokens) -> Any:
        if len(tokens) == 1:
            return coerce(value, ("a string",))
        if isinstance(value, int | float):
            name = make_identifier(str(value), self._taken)
            self._taken.add(name)
            return name
        return NO_MEND

    def _is_required(self, tokens: Tokens) -> bool:
        model = _part_of(tokens)
        field = model.model_fields.get(str(tokens[-1])) if model else None
        return field is None or field.is_required()

    def _settle(self, tokens: Tokens, value: Any, mend: Any) -> None:
        """Put the mend into the copy; without one, whatever lets the rest be read."""
        holder, key = self._holder(tokens), tokens[-1]
        if mend is not NO_MEND:
            holder[key] = copy.deepcopy(mend)
            if isinstance(mend, list) and mend and mend[0] is value:
                self._findings.move(pointer(*tokens, 0), pointer(*tokens))
            return
        if isinstance(holder, list):
            holder[int(key)] = self._stand_in(tokens)
        elif key in _STAND_INS and isinstance(holder, dict):
            holder[key] = _STAND_INS[key]
        elif key == "name" and len(tokens) > 1:
            holder[key] = self._placeholder()
        elif key == "tasks" and len(tokens) == 3:
            holder[key] = [{"name": self._placeholder()}]
        elif isinstance(holder, dict):
            holder.pop(key, None)

    def _stand_in(self, tokens: Tokens) -> Any:
        if tokens[-2] == "stages":
            return {"name": self._placeholder(), "tasks": []}
        if tokens[-2] in _PARTS:
            return {"name": self._placeholder()}
        return self._placeholder()  # an item of depends_on, required_tools, tags, retry.on

    def _placeholder(self) -> str:
        name = make_identifier(f"unreadable_{len(self._findings.placeholders) + 1}", self._taken)
        self._taken.add(name)
        self._findings.placeholders.add(name)
        return name


def _names(document: dict[str, Any]) -> set[str]:
    """Every name of a stage or task in the document."""
    parts = (part for _, part in (*named_stages(document), *named_tasks(document)))
    return {part["name"] for part in parts if isinstance(part.get("name"), str)}
