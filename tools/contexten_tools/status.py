"""get_flow_status."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field

from contexten.extensions.flow.definition import named_tasks
from contexten.extensions.flow.errors import IllegalMove, InvalidArguments, Issue, TaskNotFound
from contexten.extensions.flow.views import Detail, FlowView, RunView
from contexten_tools.app import App
from contexten_tools.arguments import INTEGRAL, Arguments, Cursor, FlowId, RunId, TaskName
from contexten_tools.budget import (
    DEFAULT_CHARS,
    LEAST_CHARS,
    MOST_CHARS,
    bounded,
    cut_events,
    cut_tasks,
    is_text_place,
    offset_of,
    output_uri,
    put_text,
)
from contexten_tools.calls import Call
from contexten_tools.runviews import call as next_to_call
from contexten_tools.runviews import run_answer
from contexten_tools.schemas import answer_schema
from contexten_tools.text import compact
from contexten_tools.toolserver import FlowTool, ToolServer

_MAX_EVENTS = 1000
_TASK_CHARS = 1000  # that a task may have, and what is said of those left out

STATUS = """\
How a run stands (run_id), or the latest run of a flow (flow_id; a flow that never ran answers as the flow, state \
"idle").

detail: "summary" (default) state, progress, error; "tasks" each task with state, attempts, error and timing (one \
of them with task=); "graph" tasks, and what each depends on; "events" the journal, oldest first; "output" the \
run's output, or one task's with task=; "definition" what it runs, \
or one task's with task=.
since= (the cursor of an earlier answer) gives only tasks and events that came after it: poll cheaply with it, or \
better, call wait_for_flow.

The answer keeps to max_chars characters (20,000 by default). What does not fit is cut and `output_truncated` says \
how much there is and in `next` how to get the rest; `more_events: true` means: ask again with since=cursor. To \
know why a run failed or does not move, call explain_flow."""


class GetFlowStatus(Arguments):
    """Of get_flow_status."""

    exactly_one = ("flow_id", "run_id")

    flow_id: FlowId | None = Field(None, description="the flow whose latest run is meant")
    run_id: RunId | None = Field(None, description="the run")
    since: Cursor | None = Field(None, description="cursor of an earlier answer: only what came after it")
    detail: Detail = Field("summary", description="what to tell besides state and progress")
    task: TaskName | None = Field(None, description="this task only; without detail as detail=tasks")
    max_chars: Annotated[int, Field(ge=LEAST_CHARS, le=MOST_CHARS), INTEGRAL] = Field(
        DEFAULT_CHARS, description="characters that the answer may have"
    )


async def _flow(app: App, given: GetFlowStatus, flow_id: str) -> dict[str, Any]:
    """The flow itself: asked for its definition, or it never ran."""
    flow = await app.service.get_flow(flow_id)
    answer = flow.model_copy(update={"definition": None}).data()
    definition = flow.definition or {}
    if given.task is not None:
        tasks = {task["name"]: task for _, task in named_tasks(definition)}
        if given.task not in tasks:
            raise TaskNotFound(
                f"The flow {flow_id!r} has no task {given.task!r}; it has {', '.join(list(tasks)[:20])}.",
                next=f"Call get_flow_status(flow_id={flow_id!r}, detail='definition').",
            )
        definition = tasks[given.task]
    if given.detail == "definition":
        offset = _text_offset(given)
        put_text(
            answer,
            "definition",
            compact(definition),
            given.max_chars,
            lambda since: _more(given, since, flow_id=flow_id),
            offset=offset,
        )
    if flow.latest_run is None:
        answer["next"] = next_to_call("execute_flow", flow_id=flow_id)
    return bounded(answer, given.max_chars)


def _more(given: GetFlowStatus, since: str, **subject: str) -> dict[str, Any]:
    return next_to_call(
        "get_flow_status",
        **subject,
        detail=given.detail,
        task=given.task,
        since=since,
        max_chars=None if given.max_chars == DEFAULT_CHARS else given.max_chars,
    )


def _text_offset(given: GetFlowStatus) -> int:
    if given.since is None or not is_text_place(given.since):  # a cursor: the text is told from its beginning
        return 0
    offset = offset_of(given.since)
    if offset is None:
        raise _no_cursor(given, "This since= is no place in a text.", "Pass the since of `next`, or leave it out.")
    return offset


def _no_cursor(given: GetFlowStatus, message: str, mend: str) -> InvalidArguments:
    return InvalidArguments(
        message,
        next=mend,
        issues=[Issue(path="/since", code="invalid_value", message="Not a cursor.", got=given.since)],
    )


async def _output(app: App, given: GetFlowStatus, run_id: str) -> dict[str, Any]:
    run = await app.service.get_run(run_id)
    answer = run_answer(run)
    answer.pop("output", None)
    answer.pop("next", None)
    try:
        if given.task is not None:
            text = await app.service.task_output(run_id, given.task)
        else:
            text = await app.service.run_output(run_id)
    except IllegalMove as none_yet:
        answer["has_output"] = False
        answer["note"] = none_yet.message
        if (step := run_answer(run).get("next")) is not None and step["tool"] != "get_flow_status":
            answer["next"] = step
        return bounded(answer, given.max_chars)
    answer["has_output"] = True
    put_text(
        answer,
        "output",
        text,
        given.max_chars,
        lambda since: _more(given, since, run_id=run_id),
        offset=_text_offset(given),
        resource=output_uri(run_id, given.task) if given.task is not None else None,
    )
    return answer


async def _definition(app: App, given: GetFlowStatus, run_id: str) -> dict[str, Any]:
    run = await app.service.get_run(run_id, detail="definition", task=given.task)
    answer = run_answer(run)
    definition = answer.pop("definition", None)
    put_text(
        answer,
        "definition",
        compact(definition),
        given.max_chars,
        lambda since: _more(given, since, run_id=run_id),
        offset=_text_offset(given),
    )
    return answer


def _graph(run: RunView, given: GetFlowStatus) -> dict[str, Any]:
    """Tasks and graph. Where that is too long: the graph, and tasks as far as there is room; or the graph as text, in
    parts."""
    answer = run_answer(run)
    offset = _text_offset(given)
    if "graph" not in answer or (offset == 0 and len(compact(answer)) <= given.max_chars):
        return answer
    tasks, graph = answer.pop("tasks"), compact(answer.pop("graph"))
    put_text(
        answer, "graph", graph, given.max_chars, lambda since: _more(given, since, run_id=run.run_id), offset=offset
    )
    if "graph" in answer and len(compact(answer)) <= given.max_chars - _TASK_CHARS:
        answer["tasks"] = tasks
    return answer


def register(server: ToolServer, app: App) -> None:
    """Add get_flow_status."""

    async def status(given: GetFlowStatus, call: Call) -> dict[str, Any]:  # noqa: ARG001 - every tool is told of its call
        run_id = given.run_id
        if given.flow_id is not None:
            run_id = await app.service.latest_run_id(given.flow_id)
            if run_id is None or given.detail == "definition":
                return await _flow(app, given, given.flow_id)
        if run_id is None:  # the arguments' check lets exactly one through
            raise AssertionError
        in_text = given.since is not None and is_text_place(given.since)
        if in_text and given.detail not in ("output", "definition", "graph"):
            raise _no_cursor(
                given,
                "This since= is a place in a text; it goes with detail=output, definition or graph.",
                "Pass a cursor of this run, or leave since out.",
            )
        if given.detail == "output":
            return await _output(app, given, run_id)
        if given.detail == "definition":
            return await _definition(app, given, run_id)
        run = await app.service.get_run(
            run_id,
            detail=given.detail,
            since=None if in_text else given.since,
            task=given.task,
            limit=_MAX_EVENTS,
        )
        answer = _graph(run, given) if given.detail == "graph" else run_answer(run)
        cut_events(answer, given.max_chars)
        cut_tasks(answer, given.max_chars)
        return bounded(answer, given.max_chars)

    server.add_flow_tool(
        FlowTool(
            name="get_flow_status",
            title="Status of a run or flow",
            description=STATUS,
            arguments=GetFlowStatus,
            answer=lambda: answer_schema(RunView, FlowView, with_next=True),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
            run=status,
        )
    )
