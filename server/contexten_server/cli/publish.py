"""`contexten-flow publish FLOW_ID`: a flow as a Prefect deployment."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen


def publish(
    flow_id: Annotated[str, typer.Argument(help="A saved flow.")],
    pool: Annotated[str, typer.Option(metavar="NAME", help="The Prefect work pool whose workers start its runs.")],
    version: Annotated[int | None, typer.Option(min=1, help="[default: the latest]", show_default=False)] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Make a flow a Prefect deployment, so that its runs can be started on Prefect's pages, by its API and schedules.
    They are recorded in this database. PREFECT_API_URL says where Prefect is.

    Exit codes: 0 published, 1 refused, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_publish, screen, flow_id, pool, version, db))


async def _publish(screen: Screen, flow_id: str, pool: str, version: int | None, db: Path | None) -> Exit:
    async with asking(db) as service:
        published = await service.publish_flow(flow_id, pool=pool, version=version)
    if screen.as_json:
        screen.data(published.data())
        return Exit.OK
    screen.show(f"{published.deployment}  version {published.version}  pool {published.work_pool}")
    screen.note(published.url)
    screen.note(published.next)
    return Exit.OK
