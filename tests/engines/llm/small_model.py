"""A real model that knows nothing of tools, made to call them: what it may say is constrained by their schemas.

The model writes each word of a call by itself; the grammar of its server sees to it that the words are a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from ..model_server import Call, Calls, Fault, ModelRequest, Reply, Text, text_of

MAX_TOKENS = 300  # of one answer
MAX_CHARS = 60  # of a text in a call: left alone, so small a model does not come to an end
MAX_ITEMS = 4
ANSWER_S = 300.0

_KEPT = ("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "required", "$ref")
"""Keywords of a schema that pass as they are. Where one is lost (pattern), the engine's own check finds out."""


class SmallModel:
    """A script of a ModelServer that asks the model at `url`."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=ANSWER_S, trust_env=False)
        self.calls: list[str] = []
        """The tools that the model called, in order."""
        self.words: list[str] = []
        """What it said otherwise."""

    def close(self) -> None:
        self._client.close()

    def __call__(self, request: ModelRequest) -> Reply:
        offered = _offered(request)
        body: dict[str, Any] = {
            "messages": [_plain(message) for message in request.messages],
            "temperature": request.body.get("temperature", 0),
            "max_tokens": MAX_TOKENS,
        }
        schema = _call_schema(offered) if offered else request.schema
        if offered:
            body["messages"].append({"role": "user", "content": _told(request, offered)})
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        answer = self._client.post("/v1/chat/completions", json=body)
        if answer.is_error:
            return Fault(answer.status_code, answer.text)
        found = answer.json()
        usage = (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"])
        choice = found["choices"][0]
        text = choice["message"]["content"]
        if not offered or choice["finish_reason"] == "length":
            self.words.append(text)
            return Text(text, stop=choice["finish_reason"], usage=usage)
        call = json.loads(text)
        self.calls.append(call["tool"])
        return Calls([Call(call["tool"], call["arguments"])], usage=usage)


def _offered(request: ModelRequest) -> dict[str, dict[str, Any]]:
    """The tools of which the model is to call one: those that it did not call yet, as it would go on for ever."""
    if request.forced_tool is not None:
        return {request.forced_tool: request.tools[request.forced_tool]}
    called = {call["function"]["name"] for message in request.messages for call in message.get("tool_calls") or []}
    return {name: schema for name, schema in request.tools.items() if name not in called}


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the words of a model that knows of no tools."""
    role, text = message["role"], text_of(message)
    if role == "tool":
        return {"role": "user", "content": f"The tool answered: {text}"}
    calls = [call["function"] for call in message.get("tool_calls") or []]
    said = [text, *(json.dumps({"tool": call["name"], "arguments": call["arguments"]}) for call in calls)]
    return {"role": "system" if role == "developer" else role, "content": "\n".join(part for part in said if part)}


def _told(request: ModelRequest, offered: Mapping[str, Any]) -> str:
    functions = [tool["function"] for tool in request.body["tools"]]
    lines = [f"- {one['name']}: {one.get('description', '')[:200]}" for one in functions if one["name"] in offered]
    return "\n".join(["Call one of these tools now, as JSON:", *lines])


def _call_schema(offered: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    shared: dict[str, Any] = {}
    calls = []
    for name, schema in offered.items():
        shared |= {key: _bounded(value) for key, value in schema.get("$defs", {}).items()}
        properties = {"tool": {"const": name}, "arguments": _bounded(schema)}
        calls.append({"type": "object", "properties": properties, "required": list(properties)})
    return {"anyOf": calls, "$defs": shared} if shared else {"anyOf": calls}


def _bounded(schema: Any) -> dict[str, Any]:
    """What fits this fits the schema, and is short."""
    if not isinstance(schema, dict):
        return {"type": "string", "maxLength": MAX_CHARS}
    kept = {key: schema[key] for key in _KEPT if key in schema}
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            kept[key] = [_bounded(part) for part in schema[key]]
    if not kept:
        return {"type": "string", "maxLength": MAX_CHARS}
    match kept.get("type"):
        case "string" if "enum" not in kept:
            kept["maxLength"] = min(schema.get("maxLength", MAX_CHARS), MAX_CHARS)
            kept["minLength"] = min(schema.get("minLength", 1), MAX_CHARS)
        case "array":
            kept["items"] = _bounded(schema.get("items", {}))
            kept["maxItems"] = min(schema.get("maxItems", MAX_ITEMS), MAX_ITEMS)
            kept["minItems"] = schema.get("minItems", 0)
        case "object":
            wanted = schema.get("properties", {})
            kept["properties"] = {name: _bounded(value) for name, value in wanted.items()}
            kept["additionalProperties"] = False
    return kept
