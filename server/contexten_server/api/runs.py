"""Runs: starting, following, acting on and explaining them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field

from contexten.extensions.flow.views import (
    Action,
    ControlResult,
    Detail,
    EventView,
    Explanation,
    RunPage,
    RunView,
    View,
)
from contexten_server.api.listing import Limit, Listing, Parameters
from contexten_server.api.routing import WRITES, Caller, Served, family, shown
from contexten_tools.arguments import (
    ANY_CASE,
    INTEGRAL,
    Arguments,
    Cursor,
    Definition,
    FlowId,
    JsonObject,
    RunSeconds,
    TaskName,
)
from contexten_tools.running import Deadline, Priority

router = family("runs")

RunStateName = Annotated[
    Literal["scheduled", "running", "waiting", "paused", "completed", "failed", "cancelled"], ANY_CASE
]


class RunsAsked(Listing):
    """Which runs."""

    status: RunStateName | None = None
    flow_id: FlowId | None = Field(None, description="of this flow only")


class NewRun(Arguments):
    """A run to start: of a saved flow, or of a definition given here."""

    flow_id: FlowId | None = Field(None, description="a saved flow")
    version: Annotated[int, Field(ge=1, le=2**31), INTEGRAL] | None = Field(
        None, description="of the saved flow; the latest by default"
    )
    workflow_def: Definition | None = Field(None, description="a definition to run, as an object or as JSON text")
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="what the run is called; its flow's name, by default"
    )
    inputs: JsonObject | None = Field(None, description="values for the flow's `inputs` schema")
    priority: Priority | None = Field(None, description="normal (2) by default; critical is 0, background 4")
    framework: Annotated[str, Field(max_length=40)] = Field("auto", description="engine; auto chooses one")
    work_pool: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="a Prefect work pool whose workers run it; with framework prefect"
    )
    timeout_s: RunSeconds | None = Field(None, description="seconds after which the run is ended")
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="the same key and request answer the same run"
    )
    deadline: Deadline | None = Field(None, description="when it should be done: a time, or seconds from now")
    on_deadline: Literal["continue", "cancel"] = "continue"
    dependencies: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=100)] | None = (
        Field(None, description="run ids or flow ids (their latest run) that must have ended before it starts")
    )
    on_dependency_failure: Literal["fail", "run"] = "fail"


class RunAsked(Parameters):
    """What of a run."""

    detail: Detail = "summary"
    since: Cursor | None = Field(None, description="only tasks and events that changed after this cursor")
    task: TaskName | None = Field(None, description="this task only")
    limit: Limit = 200


class EventsAsked(Parameters):
    """Which entries of a run's journal."""

    since: Cursor | None = Field(None, description="those after this cursor")
    limit: Limit = 200


class EventsView(View):
    """Entries of a run's journal, oldest first."""

    events: list[EventView]
    more: bool = Field(description="more follow the last one: ask again with its cursor")
    reset: bool | None = Field(None, description="`since` is of another database or was pruned: entries may be missing")


class RunAction(Arguments):
    """What to do with a run."""

    action: Action
    task: TaskName | None = Field(None, description="with rerun_from: the task from which to run again")
    version: Annotated[int, Field(ge=1, le=2**31), INTEGRAL] | None = Field(
        None, description="with retry and rerun_from: the flow's version to use; the run's own by default"
    )
    timeout_s: RunSeconds | None = Field(None, description="with retry and rerun_from: the new run's time limit")
    reason: Annotated[str, Field(max_length=1000)] | None = Field(None, description="why, for the audit trail")


@router.get("/runs", response_model=RunPage)
async def list_runs(app: Served, asked: Annotated[RunsAsked, Query()]) -> Response:
    """Runs, newest first."""
    return shown(await app.service.list_runs(**asked.model_dump()))


@router.post("/runs", response_model=RunView, dependencies=[WRITES])
async def execute_flow(app: Served, caller: Caller, given: NewRun) -> Response:
    """Record a run durably and answer at once; it starts when the scheduler lets it."""
    request: dict[str, Any] = given.model_dump()
    return shown(await app.service.execute_flow(actor=caller, **request))


@router.get("/runs/{run_id}", response_model=RunView)
async def get_run(app: Served, run_id: str, asked: Annotated[RunAsked, Query()]) -> Response:
    """A run, with what `detail` asks for."""
    return shown(await app.service.get_run(run_id, **asked.model_dump()))


@router.get("/runs/{run_id}/events", response_model=EventsView)
async def list_events(app: Served, run_id: str, asked: Annotated[EventsAsked, Query()]) -> Response:
    """Entries of a run's journal, oldest first."""
    found = await app.service.events(run_id, since=asked.since, limit=asked.limit + 1)
    more = len(found) > asked.limit
    return shown(EventsView(events=found[: asked.limit], more=more, reset=found.reset or None))


@router.get("/runs/{run_id}/explanation", response_model=Explanation)
async def explain_run(app: Served, run_id: str) -> Response:
    """Why a run is where it is, and what to do."""
    return shown(await app.service.explain(run_id=run_id))


_ANY_JSON: dict[int | str, dict[str, Any]] = {200: {"description": "the output as it is: any JSON"}}


@router.get("/runs/{run_id}/output", responses=_ANY_JSON)
async def get_output(app: Served, run_id: str) -> Response:
    """A completed run's output, whole."""
    return Response(await app.service.run_output(run_id), media_type="application/json")


@router.get("/runs/{run_id}/outputs/{task}", responses=_ANY_JSON)
async def get_task_output(app: Served, run_id: str, task: str) -> Response:
    """A completed task's output, whole."""
    return Response(await app.service.task_output(run_id, task), media_type="application/json")


@router.post("/runs/{run_id}/actions", response_model=ControlResult, dependencies=[WRITES])
async def control_flow(app: Served, caller: Caller, run_id: str, given: RunAction) -> Response:
    """Cancel, pause, resume, retry or rerun a run."""
    return shown(await app.service.control(run_id, **given.model_dump(), actor=caller))
