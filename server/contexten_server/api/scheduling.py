"""The whole at a glance: how many runs, the queue and its strategy, agents, figures."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from contexten.extensions.flow.states import RunState
from contexten.extensions.flow.views import (
    AgentsView,
    MetricsView,
    QueueView,
    SchedulerView,
    StrategyChange,
    StrategyForecast,
    View,
)
from contexten_server.api.listing import Parameters
from contexten_server.api.routing import WRITES, Caller, Served, family, shown
from contexten_server.assembly import program_version
from contexten_tools.arguments import INTEGRAL, Arguments
from contexten_tools.scheduling import Strategy

router = family("scheduling")

Slots = Annotated[int, Field(ge=1, le=100_000)]


class OverviewView(View):
    """What a page shows around all else; quick to answer, to be asked often."""

    version: str
    read_only: bool
    runs: dict[RunState, int] = Field(description="how many are in each state, without those of sub-flows")


class QueueAsked(Parameters):
    """How much of the queue."""

    limit: Annotated[int, Field(ge=1, le=100)] = Field(
        50, description="runs of the queue, and as many of those kept out of it"
    )


class ForecastAsked(Parameters):
    """Of what the forecast is."""

    slots: Slots | None = Field(None, description="runs at once; as many as now by default")


class StrategyAsked(Arguments):
    """What to change: one or both."""

    strategy: Strategy | None = Field(None, description="which queued run starts next")
    max_concurrent_flows: Annotated[Slots, INTEGRAL] | None = Field(None, description="runs under way at once")
    dry_run: bool = Field(False, description="change nothing; replay recent history and the queue")


@router.get("/overview", response_model=OverviewView)
async def get_overview(app: Served) -> Response:
    """Version, whether changes are refused, and how many runs are in each state."""
    runs = {RunState(state): number for state, number in (await app.service.runs_by_state()).items()}
    return shown(OverviewView(version=program_version(), read_only=app.read_only, runs=runs))


@router.get("/queue", response_model=QueueView)
async def get_queue(app: Served, asked: Annotated[QueueAsked, Query()]) -> Response:
    """The runs that wait to start, each with what it waits for."""
    return shown(await app.service.queue(limit=asked.limit))


@router.post("/strategy", response_model=StrategyChange, dependencies=[WRITES])
async def set_strategy(app: Served, caller: Caller, given: StrategyAsked) -> Response:
    """Change the order of the queue or how many runs may be under way at once."""
    return shown(await app.service.set_strategy(**given.model_dump(), actor=caller))


@router.get("/strategy/forecast", response_model=StrategyForecast)
async def compare_strategies(app: Served, asked: Annotated[ForecastAsked, Query()]) -> Response:
    """How each strategy would fare with recent history and the queue."""
    return shown(await app.service.compare_strategies(asked.slots))


@router.get("/agents", response_model=AgentsView)
async def list_agents(app: Served) -> Response:
    """Agents, tools and engines of this process."""
    return shown(await app.service.agents())


@router.get("/metrics", response_model=MetricsView)
async def get_metrics(app: Served) -> Response:
    """Figures about scheduler, flows, tasks, agents and store. Reads all tasks: to be asked now and then."""
    return shown(await app.service.metrics())


@router.get("/scheduler", response_model=SchedulerView)
async def get_scheduler(app: Served) -> Response:
    """The scheduler's state now."""
    return shown(await app.service.scheduler())
