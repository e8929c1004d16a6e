"""The flow that Prefect's own workers run for an attempt: one process an attempt, nothing kept between them."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from ..clock import SystemClock
from ..errors import AttemptError
from ..settings import FlowSettings
from .api import PrefectApi
from .configuration import configured_api
from .connection import Connection
from .workshop import Workshop


@flow(name="contexten-flow attempt", persist_result=False, validate_parameters=False)
async def attempt(attempt: str | None = None, pieces: list[str] | None = None) -> None:
    """Make one attempt of a task with this machine's settings, and leave its verdict with the flow run.

    Raises AttemptError where the attempt failed, so that Prefect shows it as failed.
    """
    from uuid import UUID

    address = configured_api()
    if address is None:
        raise AttemptError("PREFECT_API_URL is not set where the worker runs.", kind="invalid")
    workshop = Workshop(FlowSettings())
    try:
        async with Connection(PrefectApi(address), SystemClock()) as connection:
            verdict = await workshop.perform(connection, UUID(flow_run.get_id()), attempt, pieces)
    finally:
        await workshop.aclose()
    if verdict.failure is not None:
        raise verdict.failure
