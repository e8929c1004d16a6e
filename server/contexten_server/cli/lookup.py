"""Asking the database, without driving it, whether or not a server does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contexten.extensions.flow.errors import FlowNotFound, NotFound, RunNotFound
from contexten_server.cli.conduct import load_settings, need_database

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService


@asynccontextmanager
async def asking(db: Path | None) -> AsyncIterator[FlowService]:
    """A service for questions and requests. Raises NoDatabase and what opening a database raises."""
    from contexten.extensions.flow.service import FlowService

    settings = load_settings(db)
    need_database(settings.database)
    async with FlowService(settings, drive=False, holder="contexten-flow") as service:
        yield service


async def find_run(service: FlowService, given: str) -> str:
    """The run that an id means: a run's own, or a flow's latest. Raises NotFound."""
    try:
        return (await service.get_run(given)).run_id
    except RunNotFound as no_run:
        try:
            latest = await service.latest_run_id(given)
        except FlowNotFound:
            raise no_run from None
        if latest is None:
            raise NotFound(f"flow {given} has no run yet", next="`contexten-flow list --runs` shows the runs") from None
        return latest


def is_driven(database: Path) -> bool:
    """Whether a server (or a `run`) drives the database now."""
    from contexten.extensions.flow.store.servers import drivers_of

    return bool(drivers_of(database.expanduser()))
