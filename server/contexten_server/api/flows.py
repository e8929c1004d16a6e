"""Flows: listing, saving, changing, checking and explaining them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from contexten.extensions.flow.definition import apply_patch, check_patch, load_json
from contexten.extensions.flow.errors import InvalidArguments, InvalidDefinition
from contexten.extensions.flow.views import Explanation, FlowPage, FlowSaved, FlowView, IssueView, PlanView, View
from contexten_server.api.listing import Listing, Parameters
from contexten_server.api.routing import WRITES, Caller, Served, family, shown
from contexten_tools.arguments import Arguments, Definition, FlowId, JsonArray
from contexten_tools.listing import State

router = family("flows")


class FlowsAsked(Listing):
    """Which flows."""

    status: State | None = Field(None, description="state of the latest run; idle: never ran")


class VersionAsked(Parameters):
    """Which version of a flow."""

    version: Annotated[int, Field(ge=1, le=2**31)] | None = Field(None, description="the latest by default")


class NewFlow(Arguments):
    """A flow to save."""

    workflow_def: Annotated[Definition, Field(description="the definition, as an object or as JSON text")]
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="a name for people; the definition's own by default"
    )
    description: Annotated[str, Field(max_length=4000)] | None = None
    flow_id: FlowId | None = Field(None, description="the definition's `id`, else a new one, by default")


class FlowChange(Arguments):
    """A flow's next version: one of the two."""

    workflow_def: Definition | None = Field(None, description="the whole new definition, as an object or as JSON text")
    patch: JsonArray | None = Field(None, description="RFC 6902 operations on the latest definition")


class CheckAsked(Arguments):
    """A definition to look at."""

    workflow_def: Annotated[Definition, Field(description="the definition, as an object or as JSON text")]
    patch: JsonArray | None = Field(
        None, description="RFC 6902 operations to apply to it first, such as those that mend an issue"
    )


class CheckView(View):
    """What the checker says of a definition."""

    ok: bool
    issues: list[IssueView] = Field(description="what is wrong, all of it; empty where it is valid")
    warnings: list[IssueView]
    plan: PlanView | None = None
    definition: dict[str, Any] | None = Field(
        None, description="what was checked, where a patch was applied; nothing is applied to text that is no JSON"
    )


@router.get("/flows", response_model=FlowPage)
async def list_flows(app: Served, asked: Annotated[FlowsAsked, Query()]) -> Response:
    """Saved flows with their latest runs, newest first."""
    return shown(await app.service.list_flows(**asked.model_dump()))


@router.post("/flows", response_model=FlowSaved, dependencies=[WRITES])
async def create_flow(app: Served, caller: Caller, given: NewFlow) -> Response:
    """Check a definition and save it as a flow."""
    return shown(await app.service.create_flow(**given.model_dump(), actor=caller))


@router.get("/flows/{flow_id}", response_model=FlowView)
async def get_flow(app: Served, flow_id: str, asked: Annotated[VersionAsked, Query()]) -> Response:
    """A flow with its definition and latest run."""
    return shown(await app.service.get_flow(flow_id, version=asked.version))


@router.put("/flows/{flow_id}", response_model=FlowSaved, dependencies=[WRITES])
async def update_flow(app: Served, caller: Caller, flow_id: str, given: FlowChange) -> Response:
    """Save a flow's next version; runs under way keep theirs."""
    return shown(await app.service.update_flow(flow_id, **given.model_dump(), actor=caller))


@router.get("/flows/{flow_id}/explanation", response_model=Explanation)
async def explain_flow(app: Served, flow_id: str) -> Response:
    """What a flow will do, and how long that will probably take."""
    return shown(await app.service.explain(flow_id=flow_id))


@router.post("/check", response_model=CheckView)
async def check_definition(app: Served, caller: Caller, given: CheckAsked) -> Response:
    """What the checker says of a definition, or of what a patch makes of it; nothing is saved."""
    patched = _patched(given.workflow_def, given.patch)
    checked = given.workflow_def if patched is None else patched
    try:
        saved = await app.service.create_flow(workflow_def=checked, name="checked", validate_only=True, actor=caller)
    except InvalidDefinition as error:
        issues: list[Any] = [issue.as_dict() for issue in error.issues]
        return shown(CheckView(ok=False, issues=issues, warnings=[], definition=patched))
    return shown(CheckView(ok=True, issues=[], warnings=saved.warnings, plan=saved.plan, definition=patched))


def _patched(definition: Any, patch: list[Any] | None) -> dict[str, Any] | None:
    """The definition with the patch applied; None without a patch, and where its text is no JSON, which the checker
    then says. Raises InvalidArguments where the patch does not fit."""
    if patch is None:
        return None
    check_patch(patch)
    if isinstance(definition, str):
        try:
            definition = load_json(definition)
        except (ValueError, RecursionError):
            return None
    patched = apply_patch(definition, patch)
    if not isinstance(patched, dict):
        raise InvalidArguments("The patch leaves no definition, which is a JSON object.", next="Correct the patch.")
    return patched
