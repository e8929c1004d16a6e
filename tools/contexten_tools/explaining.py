"""explain_flow."""

from __future__ import annotations

from typing import Any

from mcp_types import ToolAnnotations
from pydantic import Field

from contexten.extensions.flow.views import Explanation
from contexten_tools.app import App
from contexten_tools.arguments import Arguments, Definition, FlowId, RunId
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

EXPLAIN = """\
Explain a definition (workflow_def), a saved flow (flow_id) or a run (run_id). Changes nothing, runs nothing.

Of a definition or flow, before running it: the plan (which tasks start together, in order), the critical path, \
the side effects outside this server (hosts, files, commands) and warnings.
Of a run: why it waits or does not move (queue, retry timers, paused), and after a failure the root task, the kind \
of error, its attempts, what was skipped because of it, and in `next` the calls to make: mend and retry, raise a \
limit, or give up."""


class ExplainFlow(Arguments):
    """Of explain_flow."""

    exactly_one = ("flow_id", "run_id", "workflow_def")

    flow_id: FlowId | None = Field(None, description="a saved flow")
    run_id: RunId | None = Field(None, description="a run")
    workflow_def: Definition | None = Field(None, description="a definition, as an object or as JSON text")


def register(server: ToolServer, app: App) -> None:
    """Add explain_flow."""

    async def explain(given: ExplainFlow, call: Call) -> dict[str, Any]:  # noqa: ARG001 - every tool is told of its call
        explanation = await app.service.explain(
            flow_id=given.flow_id, run_id=given.run_id, workflow_def=given.workflow_def
        )
        return bounded(explanation.data())

    server.add_flow_tool(
        FlowTool(
            name="explain_flow",
            title="Explain a flow or run",
            description=EXPLAIN,
            arguments=ExplainFlow,
            answer=lambda: answer_schema(Explanation),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
            run=explain,
        )
    )
