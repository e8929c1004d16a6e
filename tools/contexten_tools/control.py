"""control_flow."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field

from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten.extensions.flow.views import Action, ControlResult
from contexten_tools.app import App
from contexten_tools.arguments import INTEGRAL, Arguments, RunId, RunSeconds, TaskName
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.runviews import call as next_to_call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

CONTROL = """\
Act on a run:
- cancel: end it; attempts under way are stopped, nothing of it runs again. Final.
- pause: start nothing more; attempts under way finish. resume: go on.
- retry: of a failed or cancelled run, make a new run that keeps the recorded outputs of completed tasks and runs \
the rest.
- rerun_from: of an ended run, make a new run that runs `task` and all that depends on it again, and keeps the \
other outputs.
retry and rerun_from answer the run_id of the new run (rerun_of names the old one); with `version` they use \
another version of the flow, such as one mended by update_flow: tasks that changed, and those after them, run \
anew.

The request is recorded at once; `state` says what holds now and `note` what is under way. Call \
wait_for_flow(run_id) for the outcome. An action that makes no sense in the run's state is refused as \
illegal_move. `reason` goes into the audit trail."""


class ControlFlow(Arguments):
    """Of control_flow."""

    run_id: RunId
    action: Action
    task: TaskName | None = Field(None, description="with rerun_from: the task from which to run again")
    version: Annotated[int, Field(ge=1), INTEGRAL] | None = Field(
        None, description="with retry and rerun_from: the flow's version to use; the run's own by default"
    )
    timeout_s: RunSeconds | None = Field(
        None, description="with retry and rerun_from: the new run's time limit; the old one's by default"
    )
    reason: Annotated[str, Field(max_length=1000)] | None = Field(None, description="why, for the audit trail")


def _check(given: ControlFlow) -> None:
    issues: list[Issue] = []
    if given.action == "rerun_from" and given.task is None:
        issues.append(
            Issue(path="/task", code="missing_argument", message="rerun_from needs the task to run again from.")
        )
    if given.action != "rerun_from" and given.task is not None:
        issues.append(
            Issue(path="/task", code="invalid_value", message=f"{given.action} takes no task.", got=given.task)
        )
    issues += [
        Issue(path=f"/{name}", code="invalid_value", message=f"{given.action} takes no {name}.", got=value)
        for name, value in (("version", given.version), ("timeout_s", given.timeout_s))
        if given.action not in ("retry", "rerun_from") and value is not None
    ]
    if issues:
        raise InvalidArguments(
            " ".join(issue.message for issue in issues),
            next="Call control_flow again with the arguments mended; get_flow_status(detail='tasks') names the tasks.",
            issues=issues,
        )


def register(server: ToolServer, app: App) -> None:
    """Add control_flow."""

    async def control(given: ControlFlow, call: Call) -> dict[str, Any]:
        _check(given)
        result = await app.service.control(
            given.run_id,
            given.action,
            task=given.task,
            version=given.version,
            timeout_s=given.timeout_s,
            reason=given.reason,
            actor=call.actor,
        )
        answer = result.data()
        if result.next_poll_s > 0 and result.state != "paused":
            answer["next"] = next_to_call("wait_for_flow", run_id=result.run_id)
        return bounded(answer)

    server.add_flow_tool(
        FlowTool(
            name="control_flow",
            title="Cancel, pause, resume or rerun",
            description=CONTROL,
            arguments=ControlFlow,
            answer=lambda: answer_schema(ControlResult, with_next=True),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
            ),
            run=control,
            writes=True,
        )
    )
