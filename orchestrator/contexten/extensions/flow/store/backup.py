"""Backups: a checked copy of the database, named only once it is whole; and folders that keep the newest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..errors import InvalidArguments, StoreCorrupt, StoreError
from .copying import OnStep, copy_database, partial_file, sync
from .verify import Verification, verify

STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made."""

    path: Path
    size: int
    """Bytes."""
    found: Verification


def backup(database: Path, target: Path, *, overwrite: bool = False, on_step: OnStep | None = None) -> Backup:
    """Copy the database to the file `target`, for this user's eyes only, whoever writes to it meanwhile.

    The copy is checked before it gets that name, as `verify` checks a database. Blocks; what `on_step` raises gives it
    up. Raises InvalidArguments where the name is taken, StoreCorrupt where the copy is not sound, and what opening and
    writing files raises as StoreError.
    """
    target = target.expanduser().absolute()
    check_name(database, target, overwrite=overwrite)
    with partial_file(target.with_name(f"{target.name}.partial")) as partial:
        return _make(database, partial, target, on_step)


def backup_into(database: Path, folder: Path, at: datetime, *, keep: int | None = None) -> tuple[Backup, list[Path]]:
    """Back the database up into a folder, under its name and that time; then remove all but the `keep` newest of the
    backups that were made there so. Answers the backup and what was removed. Raises as `backup`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder for backups cannot be made: {error.strerror}.", next="Name another folder."
        ) from error
    target = folder / f"{database.stem}-{at.strftime(STAMP)}{database.suffix}"
    check_name(database, target, overwrite=False)
    with partial_file(folder / f"{database.name}.partial") as partial:  # one name: a killed one's is begun anew
        made = _make(database, partial, target, None)
    return made, [] if keep is None else _remove_old(database, folder, keep)


def check_name(database: Path, target: Path, *, overwrite: bool) -> None:
    """Raises InvalidArguments where a backup may not get that name."""
    if target.is_dir():
        raise _taken("The name is a folder's.", "Name a file in it.")
    if any(Path(f"{target}{suffix}").exists() for suffix in ("-wal", ".lock")) or _is_same(database, target):
        raise _taken("That file is a database that servers use.", "Name another file.")
    if target.exists() and not overwrite:
        raise _taken("A file of that name is there already.", "Name another file, or overwrite it with --force.")


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _taken(message: str, suggestion: str) -> InvalidArguments:
    return InvalidArguments(message, next=suggestion)


def _make(database: Path, partial: Path, target: Path, on_step: OnStep | None) -> Backup:
    copy_database(database, partial, on_step)
    found = checked(partial)
    made = Backup(path=target, size=partial.stat().st_size, found=found)
    try:
        partial.replace(target)
        sync(target.parent)
    except OSError as error:
        raise StoreError(f"The backup cannot be named: {error.strerror}.", next="Name another file.") from error
    return made


def checked(copy: Path) -> Verification:
    """What `verify` finds in a copy, where that is no problem. Raises StoreCorrupt."""
    found = verify(copy)
    if found.problems:
        raise StoreCorrupt(
            f"The copy is not sound: {found.problems[0]}" + _others(len(found.problems) - 1),
            next="`contexten-flow verify` tells all that is wrong with a database; `contexten-flow restore` goes back "
            "to an earlier backup.",
        )
    return found


def _others(number: int) -> str:
    return f" (and {number} more)." if number else "."


def _remove_old(database: Path, folder: Path, keep: int) -> list[Path]:
    form = re.compile(rf"{re.escape(database.stem)}-\d{{8}}T\d{{6}}Z{re.escape(database.suffix)}")
    made = sorted(entry for entry in folder.iterdir() if form.fullmatch(entry.name))
    old = made[: max(0, len(made) - keep)]
    for path in old:
        path.unlink(missing_ok=True)
    return old
