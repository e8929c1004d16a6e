"""list_agents and get_metrics."""

from __future__ import annotations

from typing import Any

from mcp_types import ToolAnnotations

from contexten.extensions.flow.views import AgentsView, MetricsView
from contexten_tools.app import App
from contexten_tools.arguments import Arguments
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

AGENTS = """\
What tasks can use here: the tools that `required_tools` may name, each with its description and the JSON Schema \
of its parameters; the agents that offer them, with agent_type, capacity and load; the engines that `framework` \
may name; and the tools that are switched off, with how the operator enables them. Call it before composing a \
definition."""

METRICS = """\
Figures about this server's database: the scheduler (strategy, limit, queued, running, how long runs wait for their \
start), flows and runs by state, tasks and their failed attempts by kind, agent and tool, agents' load, and the store. \
For one run call get_flow_status or explain_flow instead."""


class NoArguments(Arguments):
    """Of tools that take none."""


def register(server: ToolServer, app: App) -> None:
    """Add list_agents and get_metrics."""

    async def list_agents(given: NoArguments, call: Call) -> dict[str, Any]:  # noqa: ARG001 - the shape of every tool
        return bounded((await app.service.agents()).data())

    async def get_metrics(given: NoArguments, call: Call) -> dict[str, Any]:  # noqa: ARG001 - the shape of every tool
        return bounded((await app.service.metrics()).data())

    hints = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    server.add_flow_tool(
        FlowTool(
            name="list_agents",
            title="Agents, tools and engines",
            description=AGENTS,
            arguments=NoArguments,
            answer=lambda: answer_schema(AgentsView),
            annotations=hints,
            run=list_agents,
        )
    )
    server.add_flow_tool(
        FlowTool(
            name="get_metrics",
            title="Metrics",
            description=METRICS,
            arguments=NoArguments,
            answer=lambda: answer_schema(MetricsView),
            annotations=hints,
            run=get_metrics,
        )
    )
