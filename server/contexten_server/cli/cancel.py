"""`contexten-flow cancel ID`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking, find_run
from contexten_server.cli.options import Db, Id, Json
from contexten_server.cli.screen import Screen


def cancel(
    run_id: Id,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded with the run.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Ask for the end of a run. The request is recorded at once; the server that drives the run carries it out.

    Exit codes: 0 recorded, 1 nothing has that id or the run has ended, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_cancel, screen, run_id, db, reason))


async def _cancel(screen: Screen, given: str, db: Path | None, reason: str | None) -> Exit:
    from contexten.extensions.flow.actor import Actor

    actor = Actor(client="contexten-flow", transport="cli", tool="cancel")
    async with asking(db) as service:
        run_id = await find_run(service, given)
        result = await service.control(run_id, "cancel", reason=reason, actor=actor)
    if screen.as_json:
        screen.data(result.data())
        return Exit.OK
    from rich.text import Text

    from contexten_server.cli.screen import state_text

    screen.show(Text.assemble(result.run_id, "  ", state_text(result.state)))
    if result.note:
        screen.note(result.note)
    return Exit.OK
