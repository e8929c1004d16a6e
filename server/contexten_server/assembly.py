"""A server from an app: identity, instructions, tools, resources, live updates."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from mcp.server.caching import CacheHint

import contexten_resources
import contexten_tools
from contexten_resources import LiveUpdates
from contexten_resources.reading import TEXT_TTL_MS
from contexten_server.apps import RUN_PAGE, SHOWN_BY, RunApp
from contexten_tools import App, ToolServer

NAME = "contexten-flow"

INSTRUCTIONS = """\
Contexten Flow runs workflows durably: nothing acknowledged is lost by a crash, a restart or your disconnecting. \
While no server runs on the database (a stdio server ends with its client) nothing moves; runs go on when the next one \
starts.

1. Compose: list_agents shows the tools that tasks can use; get_reference(topic="format") has the definition \
format with examples.
2. Save: create_flow(workflow_def=...). All problems come back at once, with patches: mend them and call again. \
explain_flow shows order and side effects.
3. Run: execute_flow(flow_id, inputs, wait_s=30) for short flows; else without wait_s, then wait_for_flow(run_id) \
until state is completed, failed or cancelled. The end of a wait never ends a run. Do not poll get_flow_status in \
a loop.
4. Read: get_flow_status(run_id, detail="output"); large outputs are cut, and the answer says how to get the rest.
5. Repair: explain_flow(run_id), then update_flow and control_flow(action="retry", version=N); completed work is \
kept.

Answers and errors carry `next`, the call to make now, where one suggests itself."""


def program_version() -> str:
    """The version of the installed distribution; `0` where it runs from a source tree that is not installed."""
    try:
        return version("contexten-flow")
    except PackageNotFoundError:
        return "0"


def build_server(app: App, *, updates: LiveUpdates | None = None) -> ToolServer:
    """An MCP server of both protocol eras over the app's open service.

    `updates` serves its subscriptions; the caller opens it beside the service. Without it there are none.
    Raises UnknownToolset.
    """
    texts = CacheHint(ttl_ms=TEXT_TTL_MS, scope="public")
    server = ToolServer(
        name=NAME,
        title="Contexten Flow",
        description="Durable workflows that agents compose, run, watch and repair.",
        instructions=INSTRUCTIONS,
        version=program_version(),
        log_level=app.settings.log_level,
        cache_hints={
            "tools/list": texts,
            "resources/list": texts,
            "resources/templates/list": texts,
            "prompts/list": texts,
            "server/discover": texts,
        },
        subscriptions=updates.bus if updates is not None else None,
        extensions=[RunApp(read_only=app.read_only)],
        transport=app.transport,
        read_only=app.read_only,
    )
    server.show_by(RUN_PAGE, *SHOWN_BY)
    contexten_tools.register(server, app)
    contexten_resources.register(server, app)
    if updates is not None:
        updates.attach(server)
    return server
