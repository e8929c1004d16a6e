"""create_flow and update_flow."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field

from contexten.extensions.flow.views import FlowSaved
from contexten_tools.app import App
from contexten_tools.arguments import Arguments, Definition, FlowId, JsonArray
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

EXAMPLE: dict[str, Any] = {
    "stages": [
        {
            "name": "collect",
            "tasks": [
                {
                    "name": "fetch",
                    "required_tools": ["http_client"],
                    "parameters": {"url": "{{ inputs.url }}", "format": "json"},
                },
                {
                    "name": "total",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ tasks.fetch.output.body }}", "query": "sum([].amount)"},
                },
            ],
        }
    ],
    "inputs": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}},
    "output": "{{ tasks.total.output }}",
}

CREATE = """\
Save a workflow definition as a flow (version 1), checked completely first. It runs nothing: call execute_flow \
next.

A definition has stages of tasks, run one after another ("execution_mode": "parallel" runs a stage's tasks at \
once). A task names `required_tools`, run as a pipeline (http_client, json_parser, data_processor, file_reader, \
file_writer, shell, python; list_agents has their parameters), and `parameters`, in which `{{ inputs.x }}` and `{{ \
tasks.NAME.output }}` (CEL) are filled in. Optional on tasks: depends_on, when, for_each, retry, timeout_s, \
output_schema; on the flow: inputs (JSON Schema), output.
get_reference(topic="format") has the whole format with examples; flow://schema/workflow is its JSON Schema.

A wrong definition is refused with all its problems at once (error.issues): `path` points into workflow_def, \
`suggestion` is the nearest right value, `patch` a JSON Patch that mends it. Fix them all, then call again.
validate_only=true checks and plans without saving. The same flow_id with the same content is no error (existing: \
true); with other content use update_flow. Answers flow_id, version, the plan and warnings."""

UPDATE = """\
Save a new version of a flow: either the whole new workflow_def, or a `patch` (RFC 6902 JSON Patch) against its \
latest definition, such as [{"op": "replace", "path": "/stages/0/tasks/1/parameters/query", "value": \
"length(@)"}].

Checked as create_flow checks. Runs under way keep the version that they started with; new runs get the new one. \
To repair a failed run: update_flow, then control_flow(run_id, action="retry", version=N), which keeps the outputs \
of the tasks that did not change. Answers the new version (the same one and existing: true where nothing changed) \
and warnings."""


class CreateFlow(Arguments):
    """Of create_flow."""

    workflow_def: Annotated[
        Definition, Field(description="the definition, as an object or as JSON text", examples=[EXAMPLE])
    ]
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="a name for people; the definition's own by default", examples=["Daily report"]
    )
    description: Annotated[str, Field(max_length=4000)] | None = Field(None, description="what the flow is for")
    flow_id: FlowId | None = Field(
        None, description="id to save it under; the definition's `id`, else a new one, by default"
    )
    validate_only: bool = Field(False, description="check and plan only, save nothing")


class UpdateFlow(Arguments):
    """Of update_flow."""

    exactly_one = ("workflow_def", "patch")

    flow_id: FlowId
    workflow_def: Definition | None = Field(None, description="the whole new definition, as an object or as JSON text")
    patch: JsonArray | None = Field(
        None,
        description="RFC 6902 operations on the latest definition",
        examples=[[{"op": "replace", "path": "/stages/0/tasks/0/parameters/url", "value": "https://example.com/data"}]],
    )


def register(server: ToolServer, app: App) -> None:
    """Add create_flow and update_flow."""

    async def create(given: CreateFlow, call: Call) -> dict[str, Any]:
        saved = await app.service.create_flow(
            workflow_def=given.workflow_def,
            name=given.name,
            description=given.description,
            flow_id=given.flow_id,
            validate_only=given.validate_only,
            actor=call.actor,
        )
        return bounded(saved.data())

    async def update(given: UpdateFlow, call: Call) -> dict[str, Any]:
        saved = await app.service.update_flow(
            given.flow_id, workflow_def=given.workflow_def, patch=given.patch, actor=call.actor
        )
        return bounded(saved.data())

    server.add_flow_tool(
        FlowTool(
            name="create_flow",
            title="Create a flow",
            description=CREATE,
            arguments=CreateFlow,
            answer=lambda: answer_schema(FlowSaved),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
            ),
            run=create,
            writes=True,
        )
    )
    server.add_flow_tool(
        FlowTool(
            name="update_flow",
            title="Update a flow",
            description=UPDATE,
            arguments=UpdateFlow,
            answer=lambda: answer_schema(FlowSaved),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
            ),
            run=update,
            writes=True,
        )
    )
