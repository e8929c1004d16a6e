"""`contexten-flow stats`: how runs that have ended went."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, FlowOfRuns, Json, Since, Until
from contexten_server.cli.printable import in_line
from contexten_server.cli.screen import Screen, duration_text, plain_table

if TYPE_CHECKING:
    from contexten.extensions.flow.history import HistoryRow, HistoryView


class By(StrEnum):
    """What a row is."""

    FLOW = "flow"
    AGENT = "agent"
    TOOL = "tool"
    DAY = "day"
    KIND = "kind"


def stats(
    by: Annotated[By, typer.Option(help="A row for each of these; a kind is one of errors.")] = By.FLOW,
    since: Since = None,
    until: Until = None,
    flow: FlowOfRuns = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Rows at most.")] = 50,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show how runs that have ended went: success, duration, waits, retries, failures, cost of language models.

    Works while a server holds the database.
    Exit codes: 0 shown, 1 no flow has the id of --flow, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    question: dict[str, Any] = {"by": by.value, "since": since, "until": until, "flow_id": flow, "limit": limit}
    conduct(screen, partial(_stats, screen, db, question))


async def _stats(screen: Screen, db: Path | None, question: dict[str, Any]) -> Exit:
    async with asking(db) as service:
        found = await service.history.report(**question)
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    if found.rows:
        _show(screen, found)
    else:
        screen.note("nothing has ended in that time")
    if found.is_cut:
        screen.note("more has ended than is looked at: only the latest counts; a shorter span tells of all")
    return Exit.OK


def _show(screen: Screen, found: HistoryView) -> None:
    counted = "tasks" if found.by in (By.AGENT, By.TOOL) else "runs"
    table = plain_table(
        found.by, counted, "succeeded", "p50", "p95", "wait p50", "wait p95", "retries", "failures", "tokens", "USD"
    )
    for row in found.rows:
        table.add_row(
            in_line(row.key),
            str(row.runs if row.tasks is None else row.tasks),
            "" if row.success_rate is None else f"{row.success_rate:.1%}",
            *(duration_text(seconds) for seconds in (row.p50_s, row.p95_s, row.wait_p50_s, row.wait_p95_s)),
            str(row.retries),
            ", ".join(f"{kind} {number}" for kind, number in list(row.failures.items())[:3]),
            _tokens(row),
            "" if row.cost_usd is None else f"{row.cost_usd:.4f}",
        )
    screen.show(table)


def _tokens(row: HistoryRow) -> str:
    return "" if row.input_tokens is None else str(row.input_tokens + (row.output_tokens or 0))
