"""Flows as Prefect deployments: started from Prefect's pages, API and schedules, recorded in the journal here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..errors import AttemptError
from ..views import FlowView, View
from .api import PrefectApi, PrefectError
from .connection import Connection
from .names import prefect_name
from .publication import find_pool

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

ENTRYPOINT = "contexten.extensions.flow.prefect.published.published_flow"
PULL_STEPS = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
"""A deployment without steps has its worker copy the folder in which it was started, for each run."""

INPUTS = "inputs"
"""The parameter that holds a run's inputs."""


class Published(View):
    """A flow version that was published."""

    flow_id: str
    version: int
    deployment: str
    """Its name in Prefect, as `prefect deployment run` takes it."""
    work_pool: str
    url: str
    """Its page in Prefect."""
    next: str


async def publish_flow(api: PrefectApi, clock: Clock, flow: FlowView, *, pool: str, database: Path) -> Published:
    """Make a version of a flow (with its definition) a deployment on a work pool, or change the deployment that its
    flow has there. Runs of it are recorded in `database`, which the pool's workers must be able to open.

    Raises PrefectError where there is no such pool, or the API does not answer or refuses.
    """
    definition = flow.definition or {}
    flow_name, name = prefect_name(flow.name), prefect_name(flow.flow_id)

    async def create(client: PrefectClient) -> Any:
        return await client.create_deployment(
            flow_id=await client.create_flow_from_name(flow_name),
            name=name,
            version=str(flow.version),
            tags=flow.tags,
            description=flow.description,
            entrypoint=ENTRYPOINT,
            pull_steps=PULL_STEPS,
            work_pool_name=pool,
            parameters={INPUTS: {}},
            parameter_openapi_schema=parameter_schema(definition.get("inputs")),
            enforce_parameter_schema=True,
            job_variables={"env": _environment(database)},
        )

    try:
        async with Connection(api, clock, patience_s=0) as connection:
            await find_pool(connection, pool)
            id_ = await connection.ask(create)
    except AttemptError as error:
        raise PrefectError(error.message, is_lasting=True) from error
    deployment = f"{flow_name}/{name}"
    return Published(
        flow_id=flow.flow_id,
        version=flow.version,
        deployment=deployment,
        work_pool=pool,
        url=f"{api.address.pages}/deployments/deployment/{id_}",
        next=f"Start a worker where the database is: prefect worker start --pool {pool}. Then start runs on the page, "
        f"or with: prefect deployment run '{deployment}' --param {INPUTS}='{{...}}'",
    )


def parameter_schema(inputs: Any) -> dict[str, Any]:
    """The schema of a deployment's parameters: the flow's inputs, as one object."""
    schema = _moved(inputs) if isinstance(inputs, dict) else {}
    needs_inputs = bool(schema.get("required"))
    return {
        "title": "Parameters",
        "type": "object",
        "properties": {INPUTS: {"type": "object", **schema, "title": INPUTS, "position": 0}},
        "required": [INPUTS] if needs_inputs else [],
        "definitions": {},
    }


def _moved(schema: Any) -> Any:
    """A schema whose references within itself hold where it stands in the other."""
    if isinstance(schema, list):
        return [_moved(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"#/properties/{INPUTS}{reference[1:]}"
    return moved


def _environment(database: Path) -> dict[str, str]:
    return {"CONTEXTEN_FLOW_DATABASE": str(database.expanduser().absolute())}
