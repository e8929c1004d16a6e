"""`contexten-flow backup`: a copy of the database while servers use it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contexten_server.cli.conduct import end, load_settings, need_database
from contexten_server.cli.exits import Exit, UsageProblem
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from contexten.extensions.flow.store.backup import Backup

_FOLDER = "backups"


def backup(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="The file to write; in a folder that is named with a slash at its end, or that is there, one named by "
            "the time. [default: in `backups/` beside the database]",
            show_default=False,
        ),
    ] = None,
    db: Db = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    keep: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="In a folder: remove all but the N newest of these backups."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the database to a file while servers go on with their work, and check the copy. The file has its name only
    once it is whole and sound; `contexten-flow restore` takes it back.

    Exit codes: 0 done, 2 wrong usage or the name is taken, 3 database not usable, or the copy could not be written.
    """
    screen = Screen(as_json=as_json)
    end(screen, partial(_backup, screen, file, db, force=force, keep=keep))


def _backup(screen: Screen, file: str | None, db: Path | None, *, force: bool, keep: int | None) -> int:
    from contexten.extensions.flow.clock import SystemClock
    from contexten.extensions.flow.store.backup import backup as make
    from contexten.extensions.flow.store.backup import backup_into

    database = load_settings(db).database.expanduser().absolute()
    need_database(database)
    target = database.parent / _FOLDER if file is None else Path(file).expanduser().absolute()
    removed: list[Path] = []
    if file is None or file.endswith(("/", "\\")) or target.is_dir():
        made, removed = backup_into(database, target, SystemClock().now(), keep=keep)
    elif keep is not None:
        raise UsageProblem("--keep counts the backups of a folder", next="name a folder, with a slash at its end")
    else:
        made = make(database, target, overwrite=force)
    _tell(screen, made, removed)
    return Exit.OK


def _tell(screen: Screen, made: Backup, removed: list[Path]) -> None:
    if screen.as_json:
        data = {"path": str(made.path), "size": made.size, "runs": made.found.runs, "events": made.found.events}
        screen.data(data | {"removed": [str(path) for path in removed]})
        return
    screen.show(
        f"backup     {made.path}",
        f"size       {made.size / 1e6:.1f} MB",
        f"runs       {made.found.runs}",
        f"events     {made.found.events}",
        *(f"removed    {path}" for path in removed),
    )
    screen.note("the copy is sound: its journal and its state tables agree", style="green")
