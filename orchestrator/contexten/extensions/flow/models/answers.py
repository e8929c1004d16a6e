"""A model's answer in the structure that a task's output_schema asks for: read from words, or given by a tool."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..agents.protocol import Json
from ..definition import misfits
from ..definition.jsontext import load_json

MAX_MISFITS = 3  # answers by the tool that fit nothing, before it is given up
MAX_TOLD = 5  # misfits that a model is told of at once

_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
_LOCAL_REFERENCE = re.compile(r'"\$(?:ref|dynamicRef)": "#(?!/\$defs/|/definitions/)')
_SHARED = ("$defs", "definitions")

Schema = dict[str, Any] | bool | None


def has_structure(schema: Schema) -> bool:
    """Whether the schema asks for anything."""
    return schema not in (None, True, {})


class Misfit(Exception):
    """An answer does not fit; the message says where, in the words for a model."""


def check_answer(value: Json, schema: Schema) -> Json:
    """The value, where it fits. Raises Misfit."""
    found = misfits(schema, value) if schema is not None else ()
    if found:
        raise Misfit("; ".join(f"{issue.path or 'the whole'}: {issue.message[:300]}" for issue in found[:MAX_TOLD]))
    return value


def read_answer(text: str, schema: Schema) -> Json:
    """What a model said, as the schema asks for it: JSON, JSON in a code block, or the words themselves. Raises
    Misfit."""
    blocks = _FENCED.findall(text)
    for candidate in (text, *(blocks if len(blocks) == 1 else ())):
        try:
            value = load_json(candidate)
        except (ValueError, RecursionError):
            continue
        return check_answer(value, schema)
    try:
        return check_answer(text, schema)
    except Misfit as misfit:
        raise Misfit(f"the answer is no JSON ({misfit})") from None


def as_arguments(schema: Mapping[str, Any] | bool) -> tuple[dict[str, Any], str | None]:
    """The schema as one of a tool's arguments, which are an object always; and, where it is about something else, the
    name under which they hold that."""
    if isinstance(schema, bool):
        return {"type": "object"}, None
    if schema.get("type") == "object" and "$ref" not in schema:
        return dict(schema), None
    shared = {name: schema[name] for name in _SHARED if name in schema}
    own: dict[str, Any] = {name: value for name, value in schema.items() if name not in (*_SHARED, "$schema", "$id")}
    if _LOCAL_REFERENCE.search(json.dumps(own)):  # it would lead elsewhere from its new place
        own, shared = {"description": f"A value that fits this JSON Schema: {json.dumps(dict(schema))}"}, {}
    return {"type": "object", "properties": {"answer": own}, "required": ["answer"], **shared}, "answer"
