"""`contexten-flow strategy [NAME]`: which queued run starts next, and how many are under way at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen
from contexten_server.cli.simulate import show_comparison

if TYPE_CHECKING:
    from contexten.extensions.flow.views import SchedulerView


def strategy(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="fifo, priority, resource_aware, load_balanced or deadline_aware; without it nothing is reordered.",
            show_default=False,
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option("--slots", metavar="N", help="How many runs may be under way at once.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; replay recent runs and the queue as `simulate` does.")
    ] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show the strategy and the limit in force, or change them: for all servers of the database, and after restarts.

    Exit codes: 0 shown or changed, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_strategy, screen, db, name, slots, dry_run=dry_run))


async def _strategy(screen: Screen, db: Path | None, name: str | None, slots: int | None, *, dry_run: bool) -> Exit:
    from contexten.extensions.flow.actor import Actor

    actor = Actor(client="contexten-flow", transport="cli", tool="strategy")
    async with asking(db) as service:
        if name is None and slots is None and not dry_run:
            _show(screen, await service.scheduler())
            return Exit.OK
        change = await service.set_strategy(name, max_concurrent_flows=slots, dry_run=dry_run, actor=actor)
    if screen.as_json:
        screen.data(change.data())
        return Exit.OK
    if change.forecast is not None:
        show_comparison(screen, change.forecast)
    else:
        screen.show(_state_text(change.after.strategy, change.after.max_concurrent_flows))
    screen.note(change.effect)
    return Exit.OK


def _show(screen: Screen, found: SchedulerView) -> None:
    if screen.as_json:
        screen.data(found.data())
        return
    screen.show(_state_text(found.strategy, found.max_concurrent_flows))
    screen.note(f"{found.running} running, {found.queued} queued, {found.waiting} waiting, {found.paused} paused")


def _state_text(strategy: str, slots: int) -> str:
    return f"{strategy}  {slots} {'slot' if slots == 1 else 'slots'}"
