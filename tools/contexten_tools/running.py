"""execute_flow and wait_for_flow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp_types import ToolAnnotations
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from contexten.extensions.flow.scheduling.priorities import MAX_PRIORITY
from contexten.extensions.flow.states import RunState
from contexten.extensions.flow.views import RunView
from contexten_tools.app import App
from contexten_tools.arguments import Arguments, Cursor, Definition, FlowId, JsonObject, RunId, RunSeconds
from contexten_tools.calls import Call
from contexten_tools.runviews import ended_answer
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

MAX_WAIT_S = 45.0  # hosts cut calls at about 60 s
DEFAULT_WAIT_S = 25.0

EXECUTE = """\
Start a run of a saved flow (flow_id), or of a definition given here (workflow_def; it is checked as create_flow \
checks and saved unlisted). The run is recorded before this answers: the end of this call or of this client does not \
end it. While no server runs on the database nothing moves; the run goes on when the next one starts.

Answers at once with run_id, state and cursor; then call wait_for_flow(run_id). For short flows set wait_s (up to \
45): the call waits that long for the end, sends progress, and carries the output where it is short. The end of \
waiting never ends the run.
Tasks may reach the network, files and commands as far as the server's settings allow; explain_flow lists a flow's \
side effects.

idempotency_key makes a repeated call safe: the same key with the same request answers the same run (existing: \
true). `inputs` are checked against the flow's schema. priority orders the queue when the strategy is `priority` \
(lower number first). timeout_s bounds the whole run, a deadline is a time by which it should be done. A run with \
dependencies waits for them."""

WAIT = """\
Wait until a run has ended (until="end", default; also returns when it is paused or needs a person) or until \
anything changed (until="change"), at most timeout_s seconds (25 by default, at most 45). Sends progress while it \
waits.

Answers the run's state and progress, and as `events` what changed since `since` (a cursor from an earlier answer; \
without it since this call began). If `state` is not terminal (completed, failed, cancelled) the time was over: \
call it again with since=cursor. Waiting is free of effect: its end, or a lost connection, never touches the run. \
A short output comes with the end; a long one by get_flow_status(detail="output"). After a failure call \
explain_flow(run_id)."""


def _priority(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("wrong_type", "priority is a level's name or an integer.")
    return value


Priority = Annotated[
    Any,
    BeforeValidator(_priority),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": ["critical", "high", "normal", "low", "background"]},
                {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
            ]
        }
    ),
]


def _deadline(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("wrong_type", "deadline is a time (ISO 8601) or a number of seconds from now.")
    return value


Deadline = Annotated[
    Any, BeforeValidator(_deadline), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})
]


class ExecuteFlow(Arguments):
    """Of execute_flow."""

    exactly_one = ("flow_id", "workflow_def")

    flow_id: FlowId | None = Field(None, description="a saved flow; its latest version runs")
    workflow_def: Definition | None = Field(
        None, description="a definition to run at once, as an object or as JSON text"
    )
    inputs: JsonObject | None = Field(
        None, description="values for the flow's `inputs` schema", examples=[{"url": "https://example.com/data.json"}]
    )
    priority: Priority | None = Field(None, description="normal (2) by default; critical is 0, background 4")
    framework: Annotated[str, Field(max_length=40)] = Field(
        "auto",
        description="engine; auto chooses one (list_agents shows which are available)",
        examples=["auto", "native"],
    )
    work_pool: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="a Prefect work pool whose workers run it; with framework prefect"
    )
    timeout_s: RunSeconds | None = Field(
        None, description="seconds after which the run is ended; context.timeout of the definition by default"
    )
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="the same key and request answer the same run", examples=["report-2026-11-22"]
    )
    wait_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = Field(0, description="seconds to wait for the run's end")
    deadline: Deadline | None = Field(
        None,
        description="when it should be done: a time, or seconds from now",
        examples=["2030-01-31T18:00:00Z", 600],
    )
    on_deadline: Literal["continue", "cancel"] = Field("continue", description="what to do with it then")
    dependencies: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=100)] | None = (
        Field(None, description="run ids or flow ids (their latest run) that must have ended before it starts")
    )
    on_dependency_failure: Literal["fail", "run"] = Field(
        "fail", description="what becomes of it when one of them failed or was cancelled"
    )


class WaitForFlow(Arguments):
    """Of wait_for_flow."""

    run_id: RunId
    timeout_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = Field(
        DEFAULT_WAIT_S, description="seconds to wait at most"
    )
    until: Literal["end", "change"] = Field(
        "end", description="end: the run ended, or a person is needed; change: anything"
    )
    since: Cursor | None = Field(None, description="cursor of an earlier answer: tell what came after it")


class _NeedsPersonError(Exception):
    """Ends a wait: the run is paused, so that nothing changes until somebody acts."""


async def _wait_for_end(app: App, run: RunView, timeout_s: float, since: str, call: Call) -> RunView:
    """Wait until the run has ended or is paused; then what came after `since`."""

    async def hear(news: RunView) -> None:
        await call.report(news)
        if news.state == RunState.PAUSED:
            raise _NeedsPersonError

    try:
        await hear(run)
        return await app.service.wait(run.run_id, timeout_s=timeout_s, until="end", since=since, on_progress=hear)
    except _NeedsPersonError:
        return await app.service.wait(run.run_id, timeout_s=0, until="end", since=since)


def register(server: ToolServer, app: App) -> None:
    """Add execute_flow and wait_for_flow."""

    async def execute(given: ExecuteFlow, call: Call) -> dict[str, Any]:
        run = await app.service.execute_flow(
            flow_id=given.flow_id,
            workflow_def=given.workflow_def,
            inputs=given.inputs,
            priority=given.priority,
            deadline=given.deadline,
            on_deadline=given.on_deadline,
            dependencies=given.dependencies,
            on_dependency_failure=given.on_dependency_failure,
            framework=given.framework,
            work_pool=given.work_pool,
            timeout_s=given.timeout_s,
            idempotency_key=given.idempotency_key,
            actor=call.actor,
        )
        if given.wait_s > 0 and run.next_poll_s > 0:
            ended = await _wait_for_end(app, run, given.wait_s, run.cursor, call)
            await call.tell_logs(ended)
            run = ended.model_copy(
                update={"existing": run.existing, "events": None, "more_events": None, "reset": None}
            )
        return await ended_answer(app.service, run)

    async def wait(given: WaitForFlow, call: Call) -> dict[str, Any]:
        run = await app.service.get_run(given.run_id)
        since = given.since or run.cursor
        if given.until == "end":
            run = await _wait_for_end(app, run, given.timeout_s, since, call)
        else:
            await call.report(run)
            run = await app.service.wait(
                given.run_id, timeout_s=given.timeout_s, until="change", since=since, on_progress=call.report
            )
        await call.tell_logs(run)
        return await ended_answer(app.service, run)

    server.add_flow_tool(
        FlowTool(
            name="execute_flow",
            title="Run a flow",
            description=EXECUTE,
            arguments=ExecuteFlow,
            answer=lambda: answer_schema(RunView, with_next=True),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
            ),
            run=execute,
            writes=True,
        )
    )
    server.add_flow_tool(
        FlowTool(
            name="wait_for_flow",
            title="Wait for a run",
            description=WAIT,
            arguments=WaitForFlow,
            answer=lambda: answer_schema(RunView, with_next=True),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
            run=wait,
        )
    )
