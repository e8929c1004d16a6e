"""Several servers on one database: throughput with 1, 2 and 3 processes, and how soon a killed one's runs go on.

Prints one JSON object. With `--worker FILE` it is one of the servers, until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.ours import Stepper, chain
from benchmarks.referee import ROOT, child_environment
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

STEPS = 10
TOGETHER = 500
KILLS = 5
SLOTS = 100


class Sitter:
    """An agent whose task goes on: what a killed server leaves behind."""

    name = "sitter"
    agent_type = "sitter"
    tools = ("bench_sit",)
    capacity = 1000

    async def run(self, _task: TaskCall, _context: AttemptContext) -> None:
        await asyncio.Event().wait()


SIT = {"stages": [{"name": "work", "tasks": [{"name": "sit", "type": "sit", "required_tools": ["bench_sit"]}]}]}


async def serve(path: Path) -> None:
    """One server, until standard input ends."""
    settings = FlowSettings(database=path, max_concurrent_flows=SLOTS, stop_grace_s=0)
    async with FlowService(settings, agents=[Stepper(), Sitter()]):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def worker(path: Path, stack: ExitStack) -> subprocess.Popen[str]:
    """A server's process, ready."""
    command = [sys.executable, "-m", "benchmarks.sharing", "--worker", str(path)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(_end, process)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def throughput(folder: Path, processes: int, runs: int) -> float:
    """Ten-step runs a second, from a queue that is full when the servers are let go."""
    path = folder / f"shared-{processes}.sqlite3"
    settings = FlowSettings(database=path, max_concurrent_flows=SLOTS)
    with ExitStack() as stack:
        async with FlowService(settings, agents=[Stepper(), Sitter()], drive=False) as service:
            await service.create_flow(workflow_def=chain(STEPS), flow_id="queued")
            for _ in range(processes):
                worker(path, stack)
            start = time.perf_counter()
            for _ in range(runs // TOGETHER):
                await asyncio.gather(*(service.execute_flow(flow_id="queued") for _ in range(TOGETHER)))
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                while connection.execute("SELECT count(*) FROM runs WHERE ended_at IS NOT NULL").fetchone()[0] < runs:
                    await asyncio.sleep(0.02)
            return runs / (time.perf_counter() - start)


async def takeover_ms(folder: Path, kills: int = KILLS) -> list[float]:
    """Milliseconds from a server's SIGKILL to the journal's entry that another has taken its run over."""
    path = folder / "takeover.sqlite3"
    times = []
    with ExitStack() as stack:
        async with FlowService(FlowSettings(database=path), agents=[Stepper(), Sitter()], drive=False) as service:
            await service.create_flow(workflow_def=SIT, flow_id="sit")
            victim = worker(path, stack)
            run_id = (await service.execute_flow(flow_id="sit")).run_id
            while not (await service.get_run(run_id)).active:
                await asyncio.sleep(0.02)
            for _ in range(kills):
                heir = worker(path, stack)
                place = (await service.get_run(run_id)).cursor
                start = time.perf_counter()
                victim.send_signal(signal.SIGKILL)
                while not any(event.type == "run.lease_taken" for event in await service.events(run_id, since=place)):
                    await asyncio.sleep(0.005)
                times.append(1000 * (time.perf_counter() - start))
                victim = heir
    return times


async def measure(folder: Path, runs: int) -> dict[str, float]:
    """All of it."""
    found = {f"processes_{count}": await throughput(folder, count, runs) for count in (1, 2, 3)}
    return found | {"takeover_ms": statistics.median(await takeover_ms(folder))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--worker", type=Path, help="be a server on this database")
    options = parser.parse_args()
    if options.worker:
        asyncio.run(serve(options.worker))
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as place:
            print(json.dumps(asyncio.run(measure(Path(place), options.runs))))
