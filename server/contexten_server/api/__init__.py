"""The HTTP API under /api: what the library answers, as JSON, for the dashboard and for programs without MCP."""

from contexten_server.api.application import application

__all__ = ["application"]
