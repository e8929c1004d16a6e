"""The MCP App: the view of a run as a page that hosts show beside a tool's result."""

from contexten_server.apps.extension import RUN_PAGE, SHOWN_BY, RunApp

__all__ = ["RUN_PAGE", "SHOWN_BY", "RunApp"]
