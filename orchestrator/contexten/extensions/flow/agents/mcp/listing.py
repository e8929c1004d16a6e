"""The tools of an MCP server, as definitions name them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...definition import NotJson, ToolSpec, check_json
from ...definition.findings import Findings
from ...definition.schemas import check_schema

if TYPE_CHECKING:
    from mcp_types import Tool

logger = logging.getLogger(__name__)

_MAX_DESCRIPTION = 4000  # characters: a server's prose is read by models that choose among many tools
_MAX_SCHEMA_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """One tool of a server."""

    name: str
    """As the server calls it."""
    spec: ToolSpec
    output_schema: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The tools that a server listed last."""

    tools: dict[str, ListedTool]
    """Those that the settings allow, by the name that definitions use."""
    withheld: frozenset[str]
    """Names of those that the settings do not allow."""


def is_allowed(name: str, allow: Sequence[str]) -> bool:
    """Whether a tool of that name is among those allowed."""
    return any(fnmatchcase(name, pattern) for pattern in allow)


def listing_of(server: str, tools: Iterable[Tool], allow: Sequence[str]) -> Listing:
    """What a server listed. A schema that is none, or cannot be applied here, is left out: arguments are then checked
    by the server alone. Of two tools with one name the first counts."""
    listed: dict[str, ListedTool] = {}
    withheld: set[str] = set()
    for tool in tools:
        name = f"mcp:{server}/{tool.name}"
        if not is_allowed(tool.name, allow):
            withheld.add(name)
        elif name in listed or not tool.name or len(tool.name) > 256:
            _warn(server, f"lists the tool {tool.name[:80]!r} twice, or under no name of use; the first counts")
        else:
            listed[name] = ListedTool(
                name=tool.name,
                spec=ToolSpec(
                    name=name,
                    description=(tool.description or tool.title or "")[:_MAX_DESCRIPTION],
                    schema=_usable(server, tool.name, tool.input_schema),
                    is_alone=True,
                ),
                output_schema=_usable(server, tool.name, tool.output_schema),
            )
    return Listing(tools=listed, withheld=frozenset(withheld))


def _usable(server: str, tool: str, schema: Any) -> dict[str, Any] | None:
    if not isinstance(schema, dict):
        return None
    findings = Findings()
    try:
        check_json(schema, max_bytes=_MAX_SCHEMA_BYTES)
        if check_schema(schema, "", findings):
            return schema
        why = findings.errors[0].message
    except NotJson as error:
        why = str(error)
    _warn(server, f"has a schema for {tool[:80]!r} that is not applied: {why[:200]}")
    return None


def _warn(server: str, text: str) -> None:
    logger.warning("the MCP server %s %s", server, text, extra={"action": "list_tools", "server": server})
