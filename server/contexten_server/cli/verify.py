"""`contexten-flow verify`: the journal against the state tables, and the file's integrity."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from contexten.extensions.flow.errors import StoreCorrupt
from contexten_server.cli.conduct import end, load_settings, need_database
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen


def verify(db: Db = None, as_json: Json = False) -> None:
    """Fold the journal, compare it with what the state tables say, and check the database file's integrity. Changes
    nothing: a backup can be checked so too.

    Exit codes: 0 all agrees, 1 problems were found, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    end(screen, partial(_verify, screen, db))


def _verify(screen: Screen, db: Path | None) -> Exit:
    from contexten.extensions.flow.store.verify import verify as check

    database = load_settings(db).database.expanduser().absolute()
    need_database(database)
    try:
        found = check(database)
    except StoreCorrupt as error:  # its next step would be this command
        raise StoreCorrupt(error.message, next="Restore a backup, or choose another file with --db.") from error
    is_sound = not found.problems
    if screen.as_json:
        screen.data({"ok": is_sound, **asdict(found)})
        return Exit.OK if is_sound else Exit.FAILED
    screen.show(f"runs       {found.runs}", f"events     {found.events}", f"integrity  {found.integrity}")
    for problem in found.problems:
        screen.show(f"problem    {problem}")
    verdict = "the journal and the state tables agree" if is_sound else f"{len(found.problems)} problems found"
    screen.note(verdict, style="green" if is_sound else "bold red")
    return Exit.OK if is_sound else Exit.FAILED
