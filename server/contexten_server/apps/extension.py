"""The run's page, offered through the MCP Apps extension. Its tools answer in full for hosts that show no pages."""

from __future__ import annotations

from functools import cache, partial

from mcp.server.apps import APP_MIME_TYPE, Apps, ResourceCsp
from mcp.server.mcpserver.resources import FunctionResource

from contexten_server.apps.page import run_page

RUN_PAGE = "ui://contexten-flow/run.html"
"""The page: how a run stands, live."""

SHOWN_BY = ("execute_flow", "get_flow_status")
"""The tools whose results the page shows."""


class RunApp(Apps):
    """The extension with the run's page. The page is put together when it is first read, not when a server starts."""

    def __init__(self, *, read_only: bool) -> None:
        """Of a `read_only` server the page offers no actions."""
        super().__init__()
        self.add_resource(
            FunctionResource(
                uri=RUN_PAGE,
                name="run-page",
                title="A run, live",
                description="a page for hosts with MCP Apps: a run's tasks, timeline, logs and outputs as they happen",
                mime_type=APP_MIME_TYPE,
                meta={
                    "ui": {
                        "csp": ResourceCsp().model_dump(by_alias=True, exclude_none=True),  # nothing from anywhere
                        "prefersBorder": True,
                    }
                },
                fn=partial(_page, read_only=read_only),
            )
        )


@cache
def _page(*, read_only: bool) -> str:
    return run_page(read_only=read_only)
