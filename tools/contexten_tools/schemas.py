"""JSON Schemas as clients see them: of arguments and of answers."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

NEXT_CALL: dict[str, Any] = {
    "description": "what to call now: a tool and its arguments, or a sentence",
    "anyOf": [
        {
            "type": "object",
            "properties": {"tool": {"type": "string"}, "arguments": {"type": "object"}},
            "required": ["tool", "arguments"],
        },
        {"type": "string"},
    ],
}

ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "issues": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "path": {"type": "string"},
                            "code": {"type": "string"},
                            "message": {"type": "string"},
                            "expected": {},
                            "got": {},
                            "suggestion": {"type": "string"},
                            "patch": {"type": "array", "items": {"type": "object"}},
                        },
                        "required": ["path", "code", "message"],
                    },
                },
                "retryable": {"type": "boolean"},
                "next": NEXT_CALL,
            },
            "required": ["code", "message", "retryable", "next"],
        }
    },
    "required": ["error"],
}


def plain(schema: Any, *, names: bool = False) -> Any:
    """The schema without titles, null alternatives of optional fields and null defaults, which cost tokens and say
    nothing.

    `names` says that the keys of `schema` are names of fields or definitions, not keywords.
    """
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {key: plain(value) for key, value in schema.items()}
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "default" and value is None:
            continue
        if key in ("const", "enum", "examples", "default"):
            out[key] = value
            continue
        out[key] = plain(value, names=key in ("properties", "$defs"))
    arms = out.get("anyOf")
    if isinstance(arms, list):
        kept = [arm for arm in arms if arm != {"type": "null"}]
        if len(kept) == 1:
            del out["anyOf"]
            out = {**kept[0], **out}
        else:
            out["anyOf"] = kept
    return out


def _open(schema: Any) -> Any:
    """The schema without `additionalProperties: false`: a later version may answer more than a client has cached."""
    if isinstance(schema, list):
        return [_open(part) for part in schema]
    if isinstance(schema, dict):
        return {
            key: _open(value) for key, value in schema.items() if not (key == "additionalProperties" and value is False)
        }
    return schema


@cache
def answer_schema(*models: type[BaseModel], with_next: bool = False) -> dict[str, Any]:
    """The outputSchema of a tool that answers one of `models`: an object, `anyOf` the answers and the error.

    With `with_next` the answers carry `next`, the call to make now.
    """
    definitions: dict[str, Any] = {}
    arms: list[dict[str, Any]] = []
    for model in models:
        schema = _open(plain(model.model_json_schema(mode="validation")))
        definitions.update(schema.pop("$defs", {}))
        schema.pop("description", None)
        if with_next:
            schema["properties"] = {**schema["properties"], "next": NEXT_CALL}
        arms.append(schema)
    answer: dict[str, Any] = {"type": "object", "anyOf": [*arms, ERROR]}
    if definitions:
        answer["$defs"] = definitions
    return answer
