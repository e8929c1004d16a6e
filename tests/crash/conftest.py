"""Lives that are cut short, and what is checked after each."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("driver.py")
PATIENCE_S = 45.0

TaskKey = tuple[str, str, int]
"""(run_id, task, item); item -1 is the task itself."""


@dataclass
class Life:
    """How a life went."""

    lines: list[dict[str, Any]]
    status: int

    @property
    def was_killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def acknowledged(self) -> list[str]:
        return [line["run"] for line in self.lines if "flow" in line]

    @property
    def counts(self) -> dict[str, int]:
        """Commits and effects of a life that closed in order."""
        counts: dict[str, int] = self.lines[-1]["counts"]
        return counts


class Lives:
    """The driver, imported once; each life is a fork of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._rest = b""

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def live(self, job: dict[str, Any], *, kill_after_s: float | None = None) -> Life:
        """Live one life; `kill_after_s` from its opening, if it lasts that long, it is killed."""
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(job) + "\n").encode())
        lines: list[dict[str, Any]] = []
        pid, deadline, is_killed = 0, time.monotonic() + PATIENCE_S, False
        kill_at = float("inf")
        while True:
            line = self._line(min(deadline, kill_at))
            if line is None:
                assert not is_killed, "a killed process does not end"
                with suppress(ProcessLookupError):  # it has ended by itself, and the driver has not said so yet
                    os.kill(pid, signal.SIGKILL)
                is_killed, kill_at = kill_at < deadline, float("inf")
                assert is_killed, f"a life does not end; it said {lines[-5:]}"
                continue
            if "pid" in line:
                pid = line["pid"]
            elif "opening" in line and kill_after_s is not None:
                kill_at = time.monotonic() + kill_after_s
            elif "ended" in line:
                return Life(lines, line["ended"])
            else:
                lines.append(line)

    def _line(self, deadline: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            assert part, "the driver ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\n")
        line: dict[str, Any] = json.loads(text)
        return line


def entries(ledger: Path) -> list[dict[str, Any]]:
    """The effects in a ledger. One that a kill cut off in mid-write has not happened: its attempt never ended."""
    found = []
    for line in ledger.read_text().splitlines() if ledger.exists() else ():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return [line for line in found if line]


@dataclass
class World:
    """One database with its ledger, over several lives."""

    lives: Lives
    folder: Path
    acknowledged: list[str] = field(default_factory=list)
    _final: dict[TaskKey, tuple[str, str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = self.folder / "flow.sqlite3"
        self.ledger = self.folder / "ledger"

    def live(self, *program: list[Any], kill_after_s: float | None = None, **job: Any) -> Life:
        """One more life; afterwards nothing that was recorded before it has been done again or has changed."""
        done_before = len(self.effects())
        job |= {
            "database": str(self.database),
            "ledger": str(self.ledger),
            "log": str(self.folder / "log"),
            "program": program,
        }
        life = self.lives.live(job, kill_after_s=kill_after_s)
        assert life.was_killed or life.status == 0, self.log()
        self.acknowledged += life.acknowledged
        self._check(done_before)
        return life

    def run_to_the_end(self, **job: Any) -> Life:
        """A life that finishes all there is; it verifies."""
        life = self.live(["finish"], ["verify"], **job)
        assert life.status == 0, self.log()
        (found,) = [line for line in life.lines if "verified" in line]
        assert found["verified"], found["problems"]
        assert found["integrity"] == "ok"
        return life

    def _check(self, done_before: int) -> None:
        again = [key for key in self.effects()[done_before:] if self._final.get(key[0], ("", ""))[0] == "completed"]
        assert not again, f"done again after it was recorded as done: {again}"
        now = self.tasks()
        for key, (state, attempts, interruptions, output) in now.items():
            before = self._final.setdefault(key, (state, output)) if state in FINAL else self._final.get(key)
            assert before is None or before == (state, output), f"{key} was {before}, and is {state} {output}"
            assert 0 <= interruptions <= attempts, f"{key} has {attempts} attempts and {interruptions} interruptions"
        assert not self._final.keys() - now.keys(), "what was recorded is gone"
        missing = set(self.acknowledged) - self.runs().keys()
        assert not missing, f"acknowledged and lost: {missing}"
        for key, attempt in self.effects():
            assert key in now, f"{key} had an effect before its start was recorded"
            assert attempt >= 1, f"{key} had attempt number {attempt}"

    # What there is to see
    def effects(self) -> list[tuple[TaskKey, int]]:
        """(task, attempt number) of each effect, in order."""
        lines = entries(self.ledger)
        return [((line["run"], line["task"], line["item"]), line["attempt"]) for line in lines]

    def times_done(self, task: str) -> int:
        return sum(key[1] == task for key, _ in self.effects())

    def attempt_ids(self, task: str) -> Counter[str]:
        lines = entries(self.ledger)
        return Counter(line["id"] for line in lines if line["task"] == task)

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Read what a killed process left behind, in a copy: a hot journal or a WAL without its index is for the next
        process to recover, and cannot be read without that."""
        if not self.database.exists() or not self.database.stat().st_size:
            return []  # it was killed before the schema was there
        with tempfile.TemporaryDirectory() as folder:
            for suffix in ("", "-wal", "-journal"):
                source = self.database.with_name(self.database.name + suffix)
                if source.exists():
                    shutil.copy(source, folder)
            with closing(sqlite3.connect(Path(folder) / self.database.name)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall():
                    return []
                return connection.execute(sql, parameters).fetchall()

    def tasks(self) -> dict[TaskKey, tuple[str, int, int, str | None]]:
        """(state, attempts, interruptions, output) of each task that has a row."""
        rows = self.rows("SELECT run_id, task, item, state, attempts, interruptions, output FROM tasks")
        return {(row[0], row[1], row[2]): (row[3], row[4], row[5], row[6]) for row in rows}

    def task(self, name: str) -> tuple[str, int, int, str | None]:
        """The one task of that name."""
        (row,) = [row for key, row in self.tasks().items() if key[1] == name and key[2] == -1]
        return row

    def runs(self) -> dict[str, tuple[str, str]]:
        """(flow, state) of each run."""
        return {row[0]: (row[1], row[2]) for row in self.rows("SELECT run_id, flow_id, state FROM runs")}

    def states(self, flow: str) -> list[str]:
        return [state for flow_id, state in self.runs().values() if flow_id == flow]

    def output(self, flow: str) -> Any:
        """Of the only run of that flow."""
        ((text,),) = self.rows("SELECT output FROM runs WHERE flow_id = ?", flow)
        return json.loads(text)

    def outputs(self, flow: str) -> list[Any]:
        """Of all runs of that flow."""
        return [json.loads(text) for (text,) in self.rows("SELECT output FROM runs WHERE flow_id = ?", flow)]

    def log(self, name: str = "log") -> str:
        path = self.folder / name
        return path.read_text()[-6000:] if path.exists() else ""


FINAL = ("completed", "failed", "skipped", "cancelled")


@pytest.fixture(scope="session")
def lives() -> Iterator[Lives]:
    driver = Lives()
    try:
        yield driver
    finally:
        driver.close()


@pytest.fixture
def world(lives: Lives, tmp_path: Path) -> World:
    return World(lives, tmp_path)
