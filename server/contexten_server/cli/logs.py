"""`contexten-flow logs ID`: a run's journal."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking, find_run
from contexten_server.cli.options import Db, Id, Json
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.views import EventView

_LOOK_S = 1.0
"""How long one wait for news lasts: a run that another process drives is looked at again after it."""

_TERMINAL = frozenset({"completed", "failed", "cancelled"})


def logs(
    run_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    since: Annotated[str | None, typer.Option(metavar="CURSOR", help="Only what came after this cursor.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Print the journal of a run, oldest first. With --json each event is a line of its own.

    Exit codes: 0 printed, 1 nothing has that id, 2 wrong usage, 3 database not usable, 130 Ctrl-C.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_logs, screen, run_id, db, since, follow=follow))


async def _logs(screen: Screen, given: str, db: Path | None, since: str | None, *, follow: bool) -> Exit:
    async with asking(db) as service:
        run_id = await find_run(service, given)
        since = await _print_new(screen, service, run_id, since)
        told: str | None = None
        while follow:
            # The state is read before the events, so that nothing recorded by its end is left out.
            run = await service.get_run(run_id)
            since = await _print_new(screen, service, run_id, since)
            if run.state in _TERMINAL:
                break
            why = "the run is paused" if run.state == "paused" else run.note
            if why not in (None, told):
                screen.note(str(why), style="yellow")
            told = why
            await service.wait(run_id, timeout_s=_LOOK_S, until="change", since=since)
    return Exit.OK


async def _print_new(screen: Screen, service: FlowService, run_id: str, since: str | None) -> str | None:
    while events := await service.events(run_id, since=since):
        if events.reset:
            screen.note(f"{since} is not of this run's journal; this is the whole of it", style="yellow")
        since = events[-1].cursor
        for event in events:
            _print(screen, event)
    return since


def _print(screen: Screen, event: EventView) -> None:
    if screen.as_json:
        screen.line(event.data())
        return
    from contexten_server.cli.run_table import event_text

    screen.show(event_text(event))
