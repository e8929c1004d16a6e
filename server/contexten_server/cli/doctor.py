"""`contexten-flow doctor`: whether this machine and these settings will do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen, plain_table

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
_MARKS = {"ok": "✓", "note": "!", "problem": "✗"}


def doctor(
    host: Annotated[str, typer.Option(help="The address that `serve --transport http` would use.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that it would use.")] = 8377,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Check Python, SQLite, the database's place, tools, secrets (never their values), engines and the port.

    Exit codes: 0 no problem (notes are not problems), 1 a problem was found, 2 wrong usage.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_doctor, screen, db, host, port))


async def _doctor(screen: Screen, db: Path | None, host: str, port: int) -> Exit:
    from contexten_server.cli.checkup import examine

    findings = await examine(db, host, port)
    verdict = Exit.FAILED if any(finding.level == "problem" for finding in findings) else Exit.OK
    if screen.as_json:
        screen.data({"ok": verdict is Exit.OK, "checks": [finding.data() for finding in findings]})
        return verdict
    from rich.text import Text

    table = plain_table("", "check", "found")
    for finding in findings:
        found = Text(finding.found)
        if finding.advice:
            found.append(f"\n{finding.advice}", style="bright_black")
        table.add_row(Text(_MARKS[finding.level], style=_STYLES[finding.level]), finding.check, found)
    screen.show(table)
    return verdict
