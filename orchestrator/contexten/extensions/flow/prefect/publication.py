"""What a work pool must have before attempts can be submitted to it: it must be there, and hold our deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import UUID

from ..errors import AttemptError
from .api import PrefectError
from .connection import Connection

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import WorkPool

FLOW = "contexten-flow attempt"
ENTRYPOINT = "contexten.extensions.flow.prefect.entrypoint.attempt"
_KNOWN_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A work pool as its API tells of it."""

    name: str
    type: str
    is_paused: bool
    concurrency_limit: int | None
    workers_online: tuple[str, ...]
    """Names of the workers that were heard of lately."""
    workers_offline: int


async def pool_state(connection: Connection, pool: str) -> PoolState:
    """What is known of a work pool now. Raises AttemptError (invalid) where there is none of that name."""
    found = await find_pool(connection, pool)
    workers = await connection.ask(lambda client: client.read_workers_for_work_pool(pool))
    online = tuple(sorted(worker.name for worker in workers if worker.status.value == "ONLINE"))
    return PoolState(
        name=found.name,
        type=found.type,
        is_paused=found.is_paused,
        concurrency_limit=found.concurrency_limit,
        workers_online=online,
        workers_offline=len(workers) - len(online),
    )


async def find_pool(
    connection: Connection, pool: str, *, on_trouble: Callable[[PrefectError], None] = lambda error: None
) -> WorkPool:
    """The work pool; `on_trouble` is told where the API does not answer at once.
    Raises AttemptError (invalid) where there is none of that name."""
    from prefect.exceptions import ObjectNotFound

    try:
        return await connection.ask(lambda client: client.read_work_pool(pool), on_trouble=on_trouble)
    except ObjectNotFound:
        pools = await connection.ask(lambda client: client.read_work_pools(limit=_KNOWN_SHOWN))
        known = ", ".join(sorted(known.name for known in pools)) or "none"
        raise AttemptError(
            f"There is no work pool {pool!r} at {connection.api.address.shown} (known: {known}). Create it: "
            f"prefect work-pool create {pool} --type process; or start its first worker: "
            f"contexten-flow worker --pool {pool}",
            kind="invalid",
        ) from None


async def make_pool(connection: Connection, pool: str) -> bool:
    """Make the work pool where it is missing; answers whether it was. Raises AttemptError."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    try:
        await connection.ask(lambda client: client.read_work_pool(pool))
    except ObjectNotFound:
        try:
            await connection.ask(lambda client: client.create_work_pool(WorkPoolCreate(name=pool, type="process")))
        except ObjectAlreadyExists:
            return False
        return True
    return False


async def publish(connection: Connection, pool: str) -> UUID:
    """The id of our deployment on the pool, which is made where it is missing. Raises AttemptError."""

    async def create(client: PrefectClient) -> UUID:
        return await client.create_deployment(
            flow_id=await client.create_flow_from_name(FLOW),
            name=pool,
            version=version("contexten-flow"),
            work_pool_name=pool,
            entrypoint=ENTRYPOINT,
            description="Attempts of Contexten Flow's tasks. Its server starts these flow runs and follows them.",
            tags=["contexten-flow"],
            enforce_parameter_schema=False,
        )

    return await connection.ask(create)
