"""Every resource and template, and the one place that registers them."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.resources import ResourceSecurity
from mcp_types import Annotations

from contexten.extensions.flow.errors import IllegalMove
from contexten.extensions.flow.reference import TEXT_TOPICS, reference_text
from contexten.extensions.flow.views import View
from contexten_resources import completion, uris
from contexten_resources.outputs import MOST_CHARS, output_text
from contexten_resources.reading import let_clients_keep_texts, readable, shown
from contexten_resources.served import Served

_JSON = "application/json"
_MARKDOWN = "text/markdown"
_ROWS = 100
_EVENTS = 1000

# The values are ids that the store looks up, never paths of files: `..` may be a flow's id.
_IDS = ResourceSecurity(exempt_params=frozenset({"flow_id", "run_id", "task", "topic"}))


def register(server: MCPServer[Any], app: Served) -> None:
    """Add all resources, their completion and how long clients may keep them."""
    _register_views(server, app)
    _register_runs(server, app)
    _register_texts(server, app)
    completion.register(server, app)
    let_clients_keep_texts(server)


def _register_views(server: MCPServer[Any], app: Served) -> None:
    """What is a view of the service as it is."""
    live = Annotations(audience=["assistant", "user"], priority=0.6)

    async def flows() -> View:
        return await app.service.list_flows(limit=_ROWS)

    async def scheduler() -> View:
        return await app.service.scheduler()

    async def metrics() -> View:
        return await app.service.metrics()

    async def agents() -> View:
        return await app.service.agents()

    async def flow(flow_id: str) -> View:
        return await app.service.get_flow(flow_id)

    for uri, read, title, description in (
        (uris.FLOWS, flows, "Flows", "the newest saved flows with their latest runs; list_flows has filters and pages"),
        (
            uris.SCHEDULER,
            scheduler,
            "Scheduler",
            "strategy, limit, how many runs are queued and under way, and which start next",
        ),
        (uris.METRICS, metrics, "Metrics", "figures about scheduler, flows, tasks, agents and store"),
        (uris.AGENTS, agents, "Agents, tools and engines", "what tasks can use here, with capacity and load"),
        (uris.FLOW, flow, "A flow", "a saved flow: its definition, version and latest run"),
    ):
        add = server.resource(
            uri,
            name=read.__name__,
            title=title,
            mime_type=_JSON,
            annotations=live,
            security=_IDS,
            description=description,
        )
        add(readable(shown(read)))


def _register_runs(server: MCPServer[Any], app: Served) -> None:
    live = Annotations(audience=["assistant", "user"], priority=0.8)

    @server.resource(
        uris.RUN,
        name="run",
        title="A run",
        mime_type=_JSON,
        annotations=live,
        security=_IDS,
        description="a run: state, progress and every task; subscribe to follow it",
    )
    @readable
    @shown
    async def run(run_id: str) -> View:
        return await app.service.get_run(run_id, detail="tasks")

    @server.resource(
        uris.EVENTS,
        name="run-events",
        title="A run's events",
        mime_type=_JSON,
        annotations=live,
        security=_IDS,
        description=f"a run's journal, its first {_EVENTS} entries; get_flow_status(detail='events', since=) goes on",
    )
    @readable
    @shown
    async def events(run_id: str) -> View:
        return await app.service.get_run(run_id, detail="events", limit=_EVENTS)

    @server.resource(
        uris.OUTPUT,
        name="task-output",
        title="A task's output",
        mime_type=_JSON,
        annotations=live,
        security=_IDS,
        description=f"a completed task's output: whole up to {MOST_CHARS:,} characters; of a longer one the beginning "
        "as text in output_truncated.preview, with the get_flow_status call for the rest in output_truncated.next",
    )
    @readable
    async def output(run_id: str, task: str) -> str:
        try:
            return output_text(run_id, task, await app.service.task_output(run_id, task))
        except IllegalMove as none_yet:
            raise ResourceNotFoundError(none_yet.message) from none_yet


def _register_texts(server: MCPServer[Any], app: Served) -> None:
    text = Annotations(audience=["assistant"], priority=0.5)

    @server.resource(
        uris.SCHEMA,
        name="workflow-schema",
        title="JSON Schema of definitions",
        mime_type="application/schema+json",
        annotations=text,
        description="the JSON Schema that every workflow_def is checked against",
    )
    @readable
    async def schema() -> str:
        return reference_text("schema")

    @server.resource(
        uris.REFERENCE,
        name="reference",
        title="Reference",
        mime_type=_MARKDOWN,
        annotations=text,
        security=_IDS,
        description="documentation for agents: " + ", ".join(TEXT_TOPICS),
    )
    @readable
    async def reference(topic: str) -> str:
        if topic not in TEXT_TOPICS:
            raise ResourceNotFoundError(
                f"There is no reference topic {topic[:80]!r}; there are: {', '.join(TEXT_TOPICS)}"
            )
        return reference_text(topic, await app.service.agents())
