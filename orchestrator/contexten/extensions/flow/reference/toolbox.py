"""What a process offers to tasks, as Markdown: made from the tools' own models, so that it cannot go stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from contexten.extensions.flow.views import AgentsView, ToolView

_KEYWORDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)


def describe_tools(agents: AgentsView) -> str:
    """A section with each tool's parameters, then the tools that are off and how they are enabled."""
    lines = ["## Tools on this server", ""]
    for tool in agents.tools:
        lines += [*_tool(tool), ""]
    if agents.disabled_tools:
        lines += ["## Switched off", ""]
        lines += [f"- `{name}`: {how}" for name, how in agents.disabled_tools.items()]
        lines.append("")
    return "\n".join(lines)


def _tool(tool: ToolView) -> Iterator[str]:
    yield f"### {tool.name}"
    yield ""
    if tool.description:
        yield tool.description
    if tool.parameters is None:
        yield f"Parameters: as its agent takes them ({', '.join(tool.agents)})."
        return
    definitions = tool.parameters.get("$defs", {})
    required = set(tool.parameters.get("required", []))
    properties: dict[str, Any] = tool.parameters.get("properties", {})
    if properties:
        yield ""
    for name, schema in properties.items():
        yield f"- `{name}` ({', '.join(_facts(schema, definitions, required=name in required))})" + (
            f": {schema['description']}" if "description" in schema else ""
        )


def _facts(schema: dict[str, Any], definitions: dict[str, Any], *, required: bool) -> Iterator[str]:
    yield _type(schema, definitions)
    yield "required" if required else "optional"
    if schema.get("default") is not None:
        yield f"default {json.dumps(schema['default'])}"
    for keyword in _KEYWORDS:
        if keyword in schema:
            yield f"{keyword} {schema[keyword]}"


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _type(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        kinds = dict.fromkeys(_type(arm, definitions) for arm in schema["anyOf"])
        return " or ".join(kind for kind in kinds if kind != "null")
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array" and isinstance(schema.get("items"), dict) and schema["items"]:
        return f"array of {_type(schema['items'], definitions)}"
    return str(kind)
