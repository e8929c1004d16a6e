"""What resources need of the app that serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService


class Served(Protocol):
    """An app with an open service."""

    @property
    def service(self) -> FlowService:
        """Asked for every read."""
        ...


def low_level(server: MCPServer[Any]) -> Server[Any]:
    """The protocol server inside: where handlers are added that MCPServer has no word for."""
    return server._lowlevel_server  # noqa: SLF001 - the SDK's own guide takes handlers to it, and names no public way
