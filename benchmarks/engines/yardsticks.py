"""What a task costs on each engine beside the bare library that it wraps, first use, memory, and a work pool."""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.engines import prefect_servers

from benchmarks.contestant import ONE_STEP, SCENARIOS, TEN_STEPS
from benchmarks.engines.ours import DATABASE
from benchmarks.referee import ROOT, Seat, child_environment
from benchmarks.report import Row

STEPS = SCENARIOS[TEN_STEPS].steps
MAY_COST_MORE = 0.10  # of what the bare library costs; or
MAY_COST_MS = 5.0  # more a task, whichever is more
SETTLE_S = 3.0  # a Prefect server goes on with what it was told


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one contestant."""

    task_ms: float
    first_s: float
    resident_mib: float


BARE = {
    "strands": ("Strands", "benchmarks.engines.bare_strands"),
    "controlflow": ("ControlFlow", "benchmarks.engines.bare_controlflow"),
    "mcp": ("mcp Client", "benchmarks.engines.bare_mcp"),
    "prefect": ("Prefect @flow, @task", "benchmarks.engines.bare_prefect"),
}
"""By what is wrapped: the bare contestant's name for readers, and its module."""


def compare(
    engine: str, folder: Path, environment: dict[str, str], rounds: int, seconds: float, *, settle_s: float = 0
) -> dict[str, Figures]:
    """Ours and the bare library, each in a process of its own, in turns. With `settle_s` a turn is one flow, after so
    long a pause: where a server of both has things to do that the last one caused."""
    here = Path(sys.executable)
    modules = {"ours": "benchmarks.engines.ours", "bare": BARE[engine][1]}
    ms: dict[str, list[float]] = {name: [] for name in modules}
    first: dict[str, float] = {}
    with ExitStack() as stack:
        seats = {
            name: stack.enter_context(Seat(module, here, folder, environment | {"BENCH_ENGINE": engine}))
            for name, module in modules.items()
        }
        for name, seat in seats.items():
            first[name] = float(seat.ask(ONE_STEP, 0)["warm_up_s"])
        for number in range(rounds):
            turn = list(seats.items())
            for name, seat in turn if number % 2 == 0 else reversed(turn):
                if settle_s:
                    time.sleep(settle_s)
                    ms[name].append(1000 / STEPS * float(seat.ask(TEN_STEPS, 0)["warm_up_s"]))
                else:
                    ms[name].append(1000 / STEPS / seat.measure(TEN_STEPS, seconds))
        return {
            name: Figures(task_ms=statistics.median(ms[name]), first_s=first[name], resident_mib=seat.resident_mib())
            for name, seat in seats.items()
        }


def compared_rows(title: str, against: str, found: dict[str, Figures]) -> list[Row]:
    """The bar is on what a task costs more."""
    ours, bare = found["ours"], found["bare"]
    return [
        Row(
            name=f"{title}: a task",
            ours=ours.task_ms,
            unit="ms",
            against=bare.task_ms,
            against_name=against,
        ),
        Row(
            name=f"{title}: more a task",
            ours=ours.task_ms - bare.task_ms,
            unit="ms",
            bar=round(max(MAY_COST_MORE * bare.task_ms, MAY_COST_MS), 1),
        ),
        Row(
            name=f"{title}: first use",
            ours=ours.first_s * 1000,
            unit="ms",
            against=bare.first_s * 1000,
            against_name=against,
        ),
        Row(
            name=f"{title}: memory with children",
            ours=ours.resident_mib,
            unit="MiB",
            against=bare.resident_mib,
            against_name=against,
        ),
    ]


@contextmanager
def _model() -> Iterator[str]:
    """The URL of the scripted model."""
    command = [sys.executable, "-m", "benchmarks.engines.model"]
    with subprocess.Popen(
        command, cwd=ROOT, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def _run_ms(database: Path) -> float:
    """Milliseconds a task from the start of a run to its end in our journal, the median of the runs of TEN_STEPS."""
    query = (
        "SELECT ended_at - started_at FROM runs WHERE ended_at IS NOT NULL AND "
        "(SELECT count(*) FROM tasks WHERE tasks.run_id = runs.run_id) = ?"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        taken_s = [float(seconds) for (seconds,) in connection.execute(query, (STEPS,))]
    return 1000 / STEPS * statistics.median(taken_s)


@contextmanager
def _prefect(home: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh Prefect server on SQLite."""
    home.mkdir()
    with prefect_servers.serving(home) as server:
        yield {
            "PREFECT_API_URL": server.url,
            "PREFECT_HOME": str(home / "client"),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "DO_NOT_TRACK": "1",
        }


def _prefect_rows(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """The bar is on our run's end: what Prefect shows follows, and no task waits for it."""
    against = BARE["prefect"][0]
    with _prefect(folder / "prefect") as environment:
        found = compare("prefect", folder, environment, rounds, seconds, settle_s=SETTLE_S)
    ended = replace(found["ours"], task_ms=_run_ms(folder / DATABASE.format(engine="prefect")))
    shown = Row(
        name="Prefect: a task, until its API shows the run's end",
        ours=found["ours"].task_ms,
        unit="ms",
        against=found["bare"].task_ms,
        against_name=against,
    )
    return [*compared_rows("Prefect", against, found | {"ours": ended}), shown]


def _pool_rows(folder: Path) -> list[Row]:
    with _prefect(folder / "prefect-of-pool") as environment:
        pool = _work_pool(folder, environment)
    return [
        Row(name="work pool: submission to the task's start on a worker", ours=pool["start_ms"], unit="ms"),
        Row(name="work pool: submission to the run's end", ours=pool["end_ms"], unit="ms"),
        Row(name="work pool: a worker's start until it takes work", ours=pool["online_s"] * 1000, unit="ms"),
        Row(name="work pool: memory of a worker", ours=pool["worker_mib"], unit="MiB"),
    ]


def _work_pool(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.engines.work_pool", "--folder", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment() | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def engine_rows(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """All of them. It takes `rounds` turns of `seconds` for each of six contestants, and about two minutes."""
    titles = {"strands": "Strands", "controlflow": "ControlFlow", "mcp": "MCP server's tool"}
    rows: list[Row] = []
    with _model() as url:
        for engine, title in titles.items():
            found = compare(engine, folder, {"BENCH_MODEL_URL": url}, rounds, seconds)
            rows += compared_rows(title, BARE[engine][0], found)
    return [*rows, *_prefect_rows(folder, rounds, seconds), *_pool_rows(folder)]
