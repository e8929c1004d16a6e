"""`contexten-flow restore`: the database goes back to a backup."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from contexten_server.cli.conduct import end, load_settings
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `contexten-flow backup` made.")],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Check a backup and put it in the database's place. The database that was there stays beside it under another
    name. Runs that were under way at the backup go on with the next server.

    Exit codes: 0 done, 2 FILE is no backup, 3 a server drives the database, the backup is damaged or cannot be used.
    """
    screen = Screen(as_json=as_json)
    end(screen, partial(_restore, screen, file, db))


def _restore(screen: Screen, file: Path, db: Path | None) -> int:
    from contexten.extensions.flow.clock import SystemClock
    from contexten.extensions.flow.store.restore import restore as put_back

    database = load_settings(db).database.expanduser().absolute()
    done = put_back(file.expanduser().absolute(), database, SystemClock().now())
    if screen.as_json:
        data = {"database": str(database), "runs": done.found.runs, "events": done.found.events}
        replaced = {} if done.replaced is None else {"replaced": str(done.replaced)}
        screen.data(data | {"unfinished": done.unfinished} | replaced)
        return Exit.OK
    screen.show(
        f"database   {database}",
        f"runs       {done.found.runs}, {done.unfinished} of them unfinished",
        f"events     {done.found.events}",
        *([] if done.replaced is None else [f"before     {done.replaced}"]),
    )
    screen.note("restored; unfinished runs go on when a server starts", style="green")
    return Exit.OK
