"""What a tool of an MCP server answered, as the output of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...definition import misfits
from ...errors import AttemptError
from ...recovery.kinds import AGENT_FAILURE, INVALID
from ..protocol import Json

_MAX_ERROR_CHARS = 2000
_MAX_DETAILS_CHARS = 8000


def output_of(result: Mapping[str, Any], output_schema: dict[str, Any] | bool | None) -> Json:
    """The task's output: `structuredContent` where there is any; else a single text, parsed where it is a JSON object
    or list; else the content as a list of `{type: text | image | audio | resource | resource_link, ...}`, or the single
    one.

    Raises AttemptError: of kind agent_failure where the tool says that it failed, invalid where the server asks a
    question, or its output does not fit the schema that it announced.
    """
    if result.get("resultType", "complete") == "input_required":
        raise AttemptError("it asks the user a question, which a flow cannot answer", kind=INVALID)
    raw = result.get("content")
    content = [block for block in raw if isinstance(block, dict)] if isinstance(raw, list) else []
    structured = result.get("structuredContent")
    if result.get("isError") is True:
        raise _failure(content, structured)
    if output_schema is not None:
        _check(output_schema, structured, is_there="structuredContent" in result)
    if structured is not None:
        return structured
    described = [_described(block) for block in content]
    if not described:
        return None
    if len(described) > 1:
        return described
    return _parsed(described[0]["text"]) if described[0]["type"] == "text" else described[0]


def _failure(content: list[dict[str, Any]], structured: Any) -> AttemptError:
    text = "\n".join(block["text"] for block in content if isinstance(block.get("text"), str)).strip()
    details = None
    if structured is not None and len(json.dumps(structured)) <= _MAX_DETAILS_CHARS:
        details = {"structured": structured}
    return AttemptError(text[:_MAX_ERROR_CHARS] or "it failed without saying why", kind=AGENT_FAILURE, details=details)


def _check(schema: dict[str, Any] | bool, structured: Any, *, is_there: bool) -> None:
    if not is_there:
        raise AttemptError("it announces structured output and sent none", kind=INVALID)
    found = misfits(schema, structured)
    if found:
        place = found[0].path or "the top"
        raise AttemptError(
            f"its output does not fit its own schema at {place}: {found[0].message[:500]}",
            kind=INVALID,
            details={"issues": [issue.as_dict() for issue in found]},
        )


def _parsed(text: str) -> Json:
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _described(block: dict[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": str(block.get("text", ""))}
    if kind in ("image", "audio"):
        return {"type": kind, "mime_type": block.get("mimeType"), "base64": block.get("data")}
    if kind == "resource" and isinstance(block.get("resource"), dict):
        held = block["resource"]
        told: dict[str, Any] = {"type": "resource", "uri": held.get("uri"), "mime_type": held.get("mimeType")}
        return told | ({"text": held["text"]} if "text" in held else {"base64": held.get("blob")})
    fields = ("uri", "name", "title", "description", "size")
    return {
        "type": str(kind),
        "mime_type": block.get("mimeType"),
        **{key: block[key] for key in fields if key in block},
    }
