"""set_strategy."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field, WithJsonSchema

from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten.extensions.flow.strategies import SchedulingStrategy
from contexten.extensions.flow.views import StrategyChange
from contexten_tools.app import App
from contexten_tools.arguments import INTEGRAL, Arguments
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

STRATEGY = """\
Change how queued runs are chosen, for this database, now and after restarts. Runs under way are not touched.

strategy: "fifo" (order of submission); "priority" (lower number first; waiting raises a run step by step, so none \
starves); "deadline_aware" (least slack before its deadline first); "resource_aware" (by priority, as pools and agents \
allow; smaller runs fill gaps without delaying the next); "load_balanced" (by priority; tasks go to the least loaded \
agent). max_concurrent_flows: how many runs may be under way at once; the others queue. Give either or both.
dry_run=true changes nothing: recent history and the queue are replayed through every strategy, and the answer's \
`forecast` has mean and p95 wait, makespan and missed deadlines side by side, with a recommendation.
Answers what held before, what holds now and what that means for the queue. Change it only when asked to, or when \
get_metrics shows a queue that it would help: it concerns every client of this database."""

Strategy = Annotated[
    str, Field(min_length=1, max_length=40), WithJsonSchema({"type": "string", "enum": list(SchedulingStrategy)})
]


class SetStrategy(Arguments):
    """Of set_strategy."""

    strategy: Strategy | None = Field(None, description="which queued run starts next")
    max_concurrent_flows: Annotated[int, Field(ge=1, le=100_000), INTEGRAL] | None = Field(
        None, description="runs under way at once"
    )
    dry_run: bool = Field(False, description="change nothing; tell what every strategy would do")


def register(server: ToolServer, app: App) -> None:
    """Add set_strategy."""

    async def set_strategy(given: SetStrategy, call: Call) -> dict[str, Any]:
        if given.strategy is None and given.max_concurrent_flows is None and not given.dry_run:
            raise InvalidArguments(
                "Give strategy, max_concurrent_flows or both.",
                next="get_metrics shows what holds now.",
                issues=[Issue(path="", code="missing_argument", message="Nothing to change was given.")],
            )
        change = await app.service.set_strategy(
            given.strategy,
            max_concurrent_flows=given.max_concurrent_flows,
            dry_run=given.dry_run,
            actor=call.actor,
        )
        return change.data()

    server.add_flow_tool(
        FlowTool(
            name="set_strategy",
            title="Set the scheduling strategy",
            description=STRATEGY,
            arguments=SetStrategy,
            answer=lambda: answer_schema(StrategyChange),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
            ),
            run=set_strategy,
            writes=True,
        )
    )
