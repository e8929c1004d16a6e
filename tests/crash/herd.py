"""Several server processes on one database at once, each killed, stopped, continued and started again by the test."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .conftest import DRIVER, World

PATIENCE_S = 45.0


class Server:
    """One server process at a time, forked from a driver of its own; gathers what it says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._driver = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._rest = b""
        self.pid = 0
        self.status: int | None = 0
        """How the last process ended; None while one is there."""
        self.lines: list[dict[str, Any]] = []
        """What the last process said."""

    @property
    def lives(self) -> bool:
        return self.status is None

    @property
    def fileno(self) -> int:
        assert self._driver.stdout is not None
        return self._driver.stdout.fileno()

    def start(self, world: World, program: Sequence[Any], **job: Any) -> None:
        """Start a process on a world's database."""
        assert not self.lives
        assert self._driver.stdin is not None
        self.status, self.pid, self.lines = None, 0, []
        job |= {
            "database": str(world.database),
            "ledger": str(world.ledger),
            "log": str(world.folder / f"log-{self.name}"),
            "program": program,
        }
        self._driver.stdin.write((json.dumps(job) + "\n").encode())
        self.until(lambda: self.pid)

    def pump(self, timeout_s: float) -> None:
        """Read what it has said, waiting so long for something."""
        if not select.select([self.fileno], [], [], timeout_s)[0]:
            return
        part = os.read(self.fileno, 1 << 16)
        assert part, "the driver ended"
        *texts, self._rest = (self._rest + part).split(b"\n")
        for text in texts:
            line = json.loads(text)
            if "pid" in line:
                self.pid = line["pid"]
            elif "ended" in line:
                self.status = line["ended"]
            else:
                self.lines.append(line)

    def until(self, condition: Callable[[], Any]) -> None:
        """Listen until something holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"server {self.name} said {self.lines[-5:]}, and no more"
            self.pump(left)

    def said(self, word: str) -> list[Any]:
        """All that it has said under that name."""
        return [line[word] for line in self.lines if word in line]

    def log(self, world: World) -> str:
        """The end of what its processes logged."""
        return world.log(f"log-{self.name}")

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """End the process and the driver."""
        if self.lives and self.pid:
            with suppress(ProcessLookupError):  # it has ended, and its driver has not said so yet
                self.send(signal.SIGKILL)
            self.until(lambda: not self.lives)
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.close()
        self._driver.stdout.close()
        self._driver.wait(30)


@contextmanager
def no_writes(database: Path) -> Iterator[None]:
    """While it lasts no process is in the middle of a write."""
    descriptor = os.open(f"{database}.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
