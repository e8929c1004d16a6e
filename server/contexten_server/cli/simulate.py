"""`contexten-flow simulate`: recent history and the queue, replayed through every strategy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit, UsageProblem
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen, duration_text, plain_table

if TYPE_CHECKING:
    from contexten.extensions.flow.views import StrategyForecast

_MOST_SLOTS = 100_000
"""Of the library's limit."""


def simulate(
    slots: Annotated[
        int | None,
        typer.Option(
            "--slots", metavar="N", min=1, max=_MOST_SLOTS, help="Replay in so many slots instead of the database's."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the waits of each strategy (extra `plot`).")
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Replay the queue and recent runs through every strategy, side by side, with a recommendation. Changes nothing.

    Exit codes: 0 replayed (or nothing to replay), 1 no chart library, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    if plot is not None and plot.suffix.lower() != ".svg":
        raise typer.BadParameter("--plot writes SVG: name a file that ends in .svg")
    file = plot.expanduser() if plot is not None else None
    conduct(screen, partial(_simulate, screen, db, slots=slots, plot=file))


async def _simulate(screen: Screen, db: Path | None, *, slots: int | None, plot: Path | None) -> Exit:
    async with asking(db) as service:
        found = await service.compare_strategies(slots)
    if plot is not None:
        _draw(found, plot)
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    show_comparison(screen, found)
    if plot is not None and found.runs:
        screen.note(f"drawn: {plot}")
    return Exit.OK


def show_comparison(screen: Screen, found: StrategyForecast) -> None:
    """Every strategy side by side for people, with what was replayed and what is recommended."""
    if not found.runs:
        screen.note("nothing to replay: no run has started, and none is queued")
        return
    table = plain_table(
        "strategy", "mean wait", "95th", "most urgent", "longest", "over 1 h", "missed", "makespan", "slots used"
    )
    for figures in found.strategies:
        table.add_row(
            figures.strategy,
            duration_text(figures.mean_wait_s),
            duration_text(figures.p95_wait_s),
            duration_text(figures.urgent_wait_s),
            duration_text(figures.longest_wait_s),
            str(figures.starved),
            str(figures.missed_deadlines),
            duration_text(figures.makespan_s),
            f"{figures.slot_utilisation:.0%}",
            style="green" if figures.strategy == found.recommended else None,
        )
    screen.show(table)
    running = found.runs - found.from_history - found.queued
    screen.note(
        f"{found.from_history} ended, {running} running and {found.queued} queued runs, replayed in {found.slots} slots"
    )
    if found.recommended:
        screen.note(f"recommended: {found.reason}", style="green")


def _draw(found: StrategyForecast, file: Path) -> None:
    from contexten.extensions.flow.simulation.plot import waits_chart

    chart = waits_chart(found.strategies)
    try:
        file.write_text(chart, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{file} cannot be written: {error.strerror}", next="name another file") from None
