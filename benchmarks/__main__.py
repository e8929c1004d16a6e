"""Run every yardstick, print the table, keep it in docs/performance.md: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio

from benchmarks.contestant import HUNDRED_CONCURRENT, ONE_STEP, TEN_STEPS
from benchmarks.engines.yardsticks import engine_rows
from benchmarks.over_mcp import answer_row, notification_row, start_row
from benchmarks.peers.venv import peers_python
from benchmarks.referee import ROOT, child_environment, referee
from benchmarks.report import MAIN, PAGE, Row, machine, print_table, write_page
from benchmarks.surfaces import surface_rows

# name, scenario, against, what the ratio must at least be
THROUGHPUT_BARS = (
    ("one flow of 10 sequential steps", TEN_STEPS, "ceiling", 0.5),
    ("100 concurrent 10-step flows", HUNDRED_CONCURRENT, "ceiling", 0.25),
    ("one 1-step flow", ONE_STEP, "DBOS", 5.0),
    ("100 concurrent 10-step flows", HUNDRED_CONCURRENT, "DBOS", 50.0),
    ("100 concurrent 10-step flows", HUNDRED_CONCURRENT, "LangGraph", 10.0),
)

ENGINES = "engines"
SURFACES = "surfaces"
TABLES = (ENGINES, SURFACES)
"""The families that have a table of their own."""
QUEUED_RUNS = 10_000
DBOS_RUNS = 1_000  # it needs as long for these as we for ten times as many, and more


def throughput_rows(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Ours beside the ceiling and the peers, in turns."""
    here, peers = Path(sys.executable), peers_python()
    contestants = {
        "ours": ("benchmarks.ours", here),
        "ceiling": ("benchmarks.ceiling", here),
        "DBOS": ("benchmarks.peers.dbos_peer", peers),
        "LangGraph": ("benchmarks.peers.langgraph_peer", peers),
    }
    rates = referee(contestants, folder, rounds, seconds)
    return [
        Row(
            name=name,
            ours=rates["ours"][scenario],
            unit="flows/s",
            against=rates[against][scenario],
            against_name=against,
            bar=bar,
            bar_is_floor=True,
        )
        for name, scenario, against, bar in THROUGHPUT_BARS
    ]


def mcp_rows(folder: Path) -> list[Row]:
    """What a client feels."""
    return [anyio.run(measured, folder) for measured in (start_row, answer_row, notification_row)]


def alone(python: Path, module: str, folder: Path, **options: int) -> dict[str, float]:
    """What a measurement answers that has a process of its own."""
    command = [str(python), "-m", module, "--folder", str(folder)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def queue_rows(folder: Path, queued: int) -> list[Row]:
    """Queueing, draining, deciding, and starting again on a long queue."""
    ours = alone(Path(sys.executable), "benchmarks.queueing", folder, runs=QUEUED_RUNS, queued=queued)
    dbos = alone(peers_python(), "benchmarks.peers.dbos_queue", folder, runs=DBOS_RUNS)
    return [
        Row(
            name=f"queue {QUEUED_RUNS:,} runs",
            ours=ours["enqueue_per_s"],
            unit="runs/s",
            against=dbos["enqueue_per_s"],
            against_name=f"DBOS, {DBOS_RUNS:,} runs",
            bar=10,
            bar_is_floor=True,
        ),
        Row(
            name="drain them (100 at once)",
            ours=ours["drain_per_s"],
            unit="runs/s",
            against=dbos["drain_per_s"],
            against_name=f"DBOS, {DBOS_RUNS:,} runs",
            bar=10,
            bar_is_floor=True,
        ),
        *(
            Row(
                name=f"a decision with {queued:,} queued ({strategy})",
                ours=ours[f"long_{key}us"],
                unit="us",
                against=ours[f"short_{key}us"],
                against_name="with 1,000 queued",
                bar=2,
                bar_is_floor=False,
            )
            for strategy, key in (("priority", ""), ("resource_aware", "backfill_"))
        ),
        Row(
            name=f"start with {queued:,} queued runs",
            ours=ours["restart_s"] * 1000,
            unit="ms",
            against=None,
            against_name="",
            bar=5000,
            bar_is_floor=False,
        ),
    ]


def sharing_rows(folder: Path) -> list[Row]:
    """Several servers on one database."""
    found = alone(Path(sys.executable), "benchmarks.sharing", folder)
    return [
        *(
            Row(
                name=f"10-step flows with {count} servers on one database",
                ours=found[f"processes_{count}"],
                unit="flows/s",
                against=found["processes_1"],
                against_name="one server",
                bar=0.9,
                bar_is_floor=True,
            )
            for count in (2, 3)
        ),
        Row(
            name="a killed server's run goes on",
            ours=found["takeover_ms"],
            unit="ms",
            against=None,
            against_name="",
            bar=1000,
            bar_is_floor=False,
        ),
    ]


def memory_rows(folder: Path, queued: int) -> list[Row]:
    """The queue's cost in memory, in a process of its own."""
    return [
        Row(
            name=f"memory with {queued:,} queued runs",
            ours=alone(Path(sys.executable), "benchmarks.memory", folder, queued=queued)["resident_mib"],
            unit="MiB",
            against=None,
            against_name="",
            bar=250,
            bar_is_floor=False,
        )
    ]


def main() -> int:
    """Exit code 0 where every bar that was measured is reached, 1 where one is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        choices=["throughput", "mcp", "queue", "sharing", "memory", *TABLES],
        help="measure one family; the page keeps only those that have a table of their own: engines and surfaces",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--queued", type=int, default=100_000, help="runs in the queue when memory is taken")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="databases are made (and removed) here")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        families: dict[str, Callable[[], list[Row]]] = {
            "throughput": lambda: throughput_rows(folder, options.rounds, options.seconds),
            "mcp": lambda: mcp_rows(folder),
            "queue": lambda: queue_rows(folder, options.queued),
            "sharing": lambda: sharing_rows(folder),
            "memory": lambda: memory_rows(folder, options.queued),
            ENGINES: lambda: engine_rows(folder, options.rounds, options.seconds),
            SURFACES: lambda: anyio.run(surface_rows, folder),
        }
        measured = {name: measure() for name, measure in families.items() if options.only in {None, name}}
        where = machine(folder)
    rows = [row for found in measured.values() for row in found]
    print_table(rows, where)
    for name in TABLES:
        if name in measured:
            write_page(measured[name], where, name=name)
    if options.only is None:
        write_page([row for name, found in measured.items() if name not in TABLES for row in found], where, name=MAIN)
    if options.only in {None, *TABLES}:
        print(f"written to {PAGE.relative_to(ROOT)}")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
