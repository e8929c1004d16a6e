"""list_flows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp_types import ToolAnnotations
from pydantic import Field

from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten.extensions.flow.views import FlowPage, RunPage
from contexten_tools.app import App
from contexten_tools.arguments import ANY_CASE, INTEGRAL, Arguments, Cursor, FlowId
from contexten_tools.budget import MOST_CHARS, bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.text import compact
from contexten_tools.toolserver import FlowTool, ToolServer

LIST = """\
List saved flows with their latest run (kind="flows", default), or runs (kind="runs"), newest first.

status_filter keeps flows whose latest run has that state ("idle": never ran), or runs in that state. flow_id \
keeps one flow, or its runs; tag keeps what carries the tag. limit is 20 by default; where there are more, the \
answer has next_page: call again with page=next_page and the same filters. Use it to find ids, to see what runs \
now (kind="runs", status_filter="running") and what failed lately (kind="runs", status_filter="failed")."""

State = Annotated[
    Literal["idle", "scheduled", "running", "waiting", "paused", "completed", "failed", "cancelled"], ANY_CASE
]


class ListFlows(Arguments):
    """Of list_flows."""

    status_filter: State | None = Field(None, description="state of the (latest) run")
    kind: Literal["flows", "runs"] = Field("flows", description="what to list")
    flow_id: FlowId | None = Field(None, description="this flow, or its runs, only")
    tag: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description="with this tag only")
    limit: Annotated[int, Field(ge=1, le=100), INTEGRAL] = Field(20, description="rows in a page")
    page: Cursor | None = Field(None, description="next_page of the answer before")


async def _page(app: App, given: ListFlows, limit: int) -> FlowPage | RunPage:
    if given.kind == "runs":
        return await app.service.list_runs(
            status=given.status_filter, flow_id=given.flow_id, tag=given.tag, limit=limit, page=given.page
        )
    if given.flow_id is None:
        return await app.service.list_flows(status=given.status_filter, tag=given.tag, limit=limit, page=given.page)
    flow = (await app.service.get_flow(given.flow_id)).model_copy(update={"definition": None})
    fits = given.status_filter in (None, flow.state) and (given.tag is None or given.tag in flow.tags)
    return FlowPage(flows=[flow] if fits else [])


def register(server: ToolServer, app: App) -> None:
    """Add list_flows."""

    async def list_flows(given: ListFlows, call: Call) -> dict[str, Any]:  # noqa: ARG001 - every tool is told of its call
        if given.kind == "runs" and given.status_filter == "idle":
            raise InvalidArguments(
                "A run is never idle: idle are flows without a run.",
                next="Call list_flows with kind='flows', or with another status_filter.",
                issues=[
                    Issue(
                        path="/status_filter",
                        code="invalid_value",
                        message="idle is a state of flows, not of runs.",
                        got="idle",
                        suggestion="scheduled",
                    )
                ],
            )
        limit = given.limit
        while True:
            answer = (await _page(app, given, limit)).data()
            if limit == 1 or len(compact(answer)) <= MOST_CHARS:
                return bounded(answer)
            limit //= 2

    server.add_flow_tool(
        FlowTool(
            name="list_flows",
            title="List flows or runs",
            description=LIST,
            arguments=ListFlows,
            answer=lambda: answer_schema(FlowPage, RunPage),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
            run=list_flows,
        )
    )
