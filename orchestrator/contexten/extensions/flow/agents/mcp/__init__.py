"""MCP servers as agents: each server that the settings name is one, its tools are `mcp:<server>/<tool>`.

The only place of the library that speaks MCP. The protocol's own library is imported when a server is first opened.
"""

from .agent import McpAgent
from .servers import McpServersError, ServerConfig, mcp_agents, read_servers

__all__ = ["McpAgent", "McpServersError", "ServerConfig", "mcp_agents", "read_servers"]
