"""Several processes write into one database and checkpoint it, at once and all the time, while another copies it.

`CONTEXTEN_CHAOS=full` (`make chaos`) takes minutes for it, and then counts and prints what the load damages without
the lock between the processes, on this SQLite and on a current one (`pip install apsw`). That is no assertion: the race
of SQLite before 3.51.3 is rare, and may not show itself at all.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from contexten.extensions.flow.store.backup import backup

from .scribe import Job

IS_FULL = os.environ.get("CONTEXTEN_CHAOS") == "full"
LOCKED_S = 180.0 if IS_FULL else 12.0
TRIALS, TRIAL_S = 8, 30.0
SCRIBES = {"one": (200, 1), "two": (1, 50), "three": (1, 50)}  # one that writes, and two that mostly checkpoint


def stress(folder: Path, mode: str, seconds: float) -> list[str]:
    """What is wrong after so long, as sentences; empty where nothing is. That a scribe failed otherwise is an error."""
    folder.mkdir(exist_ok=True)
    database = folder / "stress.sqlite3"
    problems, scribes = [], {}
    for name, (fold_groups, folds) in SCRIBES.items():
        job = Job(
            name=name,
            database=str(database),
            ledger=str(folder / name),
            mode=mode,
            seconds=seconds,
            fold_groups=fold_groups,
            folds=folds,
        )
        command = [sys.executable, "-m", "tests.crash.scribe", json.dumps(asdict(job))]
        root = Path(__file__).parents[2]
        scribes[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root)
    if mode == "store":
        backups = keep_backing_up(database, lambda: all(scribe.poll() is None for scribe in scribes.values()))
        sys.stdout.write(f"\n{backups} sound backups meanwhile\n")
        assert backups
    for name, scribe in scribes.items():
        _, told = scribe.communicate(timeout=seconds + 60)
        if scribe.returncode:
            assert "store_corrupt" in told, told
            problems.append(f"{name} was told: {told.strip().splitlines()[-1]}")
    return problems + check(database, {name: acknowledged(folder / name) for name in SCRIBES})


def keep_backing_up(database: Path, goes_on: Callable[[], bool]) -> int:
    """Copy the database as others write to it and checkpoint it; answers how many copies were made and found sound."""
    done = 0
    while goes_on():
        if database.with_name("one").exists():  # the first acknowledged change: the database is there
            backup(database, database.with_name("copy.sqlite3"), overwrite=True)
            done += 1
    return done


def acknowledged(ledger: Path) -> set[int]:
    """The numbers of the changes that a scribe was told are durable."""
    return {int(line) for line in ledger.read_text().split()} if ledger.exists() else set()


def check(database: Path, ledgers: dict[str, set[int]]) -> list[str]:
    """What SQLite finds wrong in the file, and which acknowledged changes are not in it."""
    connection = sqlite3.connect(database)
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        problems = [] if found == ["ok"] else [f"integrity: {found[0]}"]
        for name, numbers in ledgers.items():
            rows = connection.execute("SELECT number FROM entries WHERE scribe = ?", (name,))
            missing = numbers - {row[0] for row in rows}
            if missing:
                problems.append(f"{len(missing)} of {len(numbers)} changes of {name} are gone")
    except sqlite3.DatabaseError as error:
        return [f"unreadable: {error}"]
    finally:
        connection.close()
    return problems


@pytest.mark.slow
@pytest.mark.timeout(LOCKED_S + 120)
def test_processes_that_write_and_checkpoint_under_the_lock_lose_nothing(tmp_path: Path) -> None:
    assert stress(tmp_path, "store", LOCKED_S) == []
    written = [len(acknowledged(tmp_path / name)) for name in SCRIBES]
    sys.stdout.write(f"\n{LOCKED_S:g} s, {sum(written)} changes of {len(written)} processes, none lost\n")
    assert all(written)  # nobody was starved


def test_a_damaged_file_and_a_lost_change_are_found(tmp_path: Path) -> None:
    assert stress(tmp_path, "store", 0.5) == []
    database, numbers = tmp_path / "stress.sqlite3", acknowledged(tmp_path / "one")
    assert check(database, {"one": numbers | {10**6}}) == [f"1 of {len(numbers) + 1} changes of one are gone"]
    content = bytearray(database.read_bytes())
    for page in range(len(content) // 8192, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = bytes(64)
    database.write_bytes(content)
    assert check(database, {}) != []


if IS_FULL:  # not skipped elsewhere: there is nothing that could be asserted

    @pytest.mark.slow
    @pytest.mark.timeout(TRIALS * (TRIAL_S + 60))
    @pytest.mark.parametrize("mode", ["unlocked", "apsw"])
    def test_without_the_lock_the_damage_is_counted(tmp_path: Path, mode: str) -> None:
        version = sqlite3.sqlite_version
        if mode == "apsw":
            if find_spec("apsw") is None:
                pytest.skip("apsw is not installed: pip install apsw")
            version = import_module("apsw").sqlite_lib_version()
        found = [stress(tmp_path / str(trial), mode, TRIAL_S) for trial in range(TRIALS)]
        damaged = sum(bool(problems) for problems in found)
        sys.stdout.write(f"\nno lock, SQLite {version}: {damaged} of {TRIALS} trials of {TRIAL_S:g} s did damage\n")
        sys.stdout.writelines(f"  {problems}\n" for problems in found if problems)
