"""get_history."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp_types import ToolAnnotations
from pydantic import Field

from contexten.extensions.flow.history import HistoryView
from contexten_tools.app import App
from contexten_tools.arguments import INTEGRAL, Arguments, FlowId
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

HISTORY = """\
How runs that have ended went, over a span of time: how many, the share that succeeded, how long they took and waited \
(median and 95th percentile), retries, failures by kind of error, tokens and cost of language models.

`by` groups them: flow, day (UTC), kind (of the error that failed them), agent or tool (then tasks are counted). \
Call it to see which flow, agent or tool fails, is slow or is expensive; explain_flow(run_id) tells why one run \
failed."""

Time = Annotated[str, Field(min_length=1, max_length=40, examples=["7d", "2030-01-31T18:00:00Z"])]


class GetHistory(Arguments):
    """Of get_history."""

    by: Literal["flow", "agent", "tool", "day", "kind"] = Field("flow", description="what a row of the answer is")
    since: Time | None = Field(None, description="only what ended then or later: ISO 8601, or so long ago (24h, 7d)")
    until: Time | None = Field(None, description="only what ended before that time")
    flow_id: FlowId | None = Field(None, description="only runs of this flow")
    limit: Annotated[int, Field(ge=1, le=500), INTEGRAL] = Field(50, description="rows at most")


def register(server: ToolServer, app: App) -> None:
    """Add get_history."""

    async def get_history(given: GetHistory, call: Call) -> dict[str, Any]:  # noqa: ARG001 - the shape of every tool
        found = await app.service.history.report(
            given.by, given.since, given.until, flow_id=given.flow_id, limit=given.limit
        )
        return bounded(found.data())

    server.add_flow_tool(
        FlowTool(
            name="get_history",
            title="How runs went",
            description=HISTORY,
            arguments=GetHistory,
            answer=lambda: answer_schema(HistoryView),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
            run=get_history,
        )
    )
