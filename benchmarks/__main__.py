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
from benchmarks.over_mcp import answer_row, notification_row, start_row
from benchmarks.peers.venv import peers_python
from benchmarks.referee import ROOT, child_environment, referee
from benchmarks.report import PAGE, Row, machine, print_table, write_page

# name, scenario, against, what the ratio must at least be
THROUGHPUT_BARS = (
    ("one flow of 10 sequential steps", TEN_STEPS, "ceiling", 0.5),
    ("100 concurrent 10-step flows", HUNDRED_CONCURRENT, "ceiling", 0.25),
    ("one 1-step flow", ONE_STEP, "DBOS", 5.0),
    ("100 concurrent 10-step flows", HUNDRED_CONCURRENT, "DBOS", 50.0),
    ("100 concurrent 10-step flows", HUNDRED_CONCURRENT, "LangGraph", 10.0),
)


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


def memory_rows(folder: Path, queued: int) -> list[Row]:
    """The queue's cost in memory, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--folder", str(folder), "--queued", str(queued)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return [
        Row(
            name=f"memory with {queued:,} queued runs",
            ours=json.loads(done.stdout)["resident_mib"],
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
    parser.add_argument("--only", choices=["throughput", "mcp", "memory"], help="measure one family, write no page")
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
            "memory": lambda: memory_rows(folder, options.queued),
        }
        rows = [row for name, measure in families.items() if options.only in {None, name} for row in measure()]
        where = machine(folder)
    print_table(rows, where)
    if options.only is None:
        write_page(rows, where)
        print(f"written to {PAGE.relative_to(ROOT)}")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
