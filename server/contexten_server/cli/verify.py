"""`contexten-flow verify`: the journal against the state tables, and the file's integrity."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from contexten.extensions.flow.errors import StoreCorrupt
from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen


def verify(db: Db = None, as_json: Json = False) -> None:
    """Fold the journal, compare it with what the state tables say, and check the database file's integrity.

    Exit codes: 0 all agrees, 1 problems were found, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_verify, screen, db))


async def _verify(screen: Screen, db: Path | None) -> Exit:
    try:
        async with asking(db) as service:
            report = await service.verify()
    except StoreCorrupt as error:  # its next step would be this command
        raise StoreCorrupt(error.message, next="Restore a backup, or choose another file with --db.") from error
    if screen.as_json:
        screen.data(report.data())
        return Exit.OK if report.ok else Exit.FAILED
    screen.show(f"runs       {report.runs}", f"events     {report.events}", f"integrity  {report.integrity}")
    for problem in report.problems:
        screen.show(f"problem    {problem}")
    verdict = "the journal and the state tables agree" if report.ok else f"{len(report.problems)} problems found"
    screen.note(verdict, style="green" if report.ok else "bold red")
    return Exit.OK if report.ok else Exit.FAILED
