"""Interleaved measurements: every contestant answers from a process of its own, in turns, round by round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.contestant import SCENARIOS

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ("orchestrator", "server", "tools", "resources")


def child_environment() -> dict[str, str]:
    """The environment of a measured process: this repository importable, no settings of the operator's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXTEN_FLOW_")}
    paths = [str(ROOT), *(str(ROOT / root) for root in SOURCE_ROOTS)]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}


@dataclass(slots=True)
class Seat:
    """A contestant's process, which answers one command at a time."""

    module: str
    python: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """More of it than every measured process has."""
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        command = [str(self.python), "-m", self.module, "--serve", "--folder", str(self.folder)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment() | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def measure(self, scenario: str, seconds: float) -> float:
        """Flows a second. Raises RuntimeError where the contestant's process ended."""
        return float(self.ask(scenario, seconds)["flows_per_s"])

    def ask(self, scenario: str, seconds: float) -> dict[str, Any]:
        """All that the contestant measured. Raises RuntimeError where its process ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"scenario": scenario, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def resident_mib(self) -> float:
        """The resident size of the contestant and of all processes that it started."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.module} ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def referee(
    contestants: dict[str, tuple[str, Path]], folder: Path, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Flows a second by contestant and scenario: the median of `rounds` turns of `seconds` each.

    `contestants` maps a name to the module that answers for it and the interpreter that runs it. Before every
    other round the order is turned round, so that nobody always follows the same neighbour.
    """
    taken: dict[str, dict[str, list[float]]] = {name: {key: [] for key in SCENARIOS} for name in contestants}
    with ExitStack() as stack:
        seats = {
            name: stack.enter_context(Seat(module, python, folder)) for name, (module, python) in contestants.items()
        }
        for scenario in SCENARIOS:
            for number in range(rounds):
                turn = list(seats.items())
                for name, seat in turn if number % 2 == 0 else reversed(turn):
                    taken[name][scenario].append(seat.measure(scenario, seconds))
    return {name: {key: statistics.median(values) for key, values in taken[name].items()} for name in taken}
