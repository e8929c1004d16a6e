"""What is measured, the same for everyone: three scenarios, and the process that answers for one contestant.

Only the standard library is imported here, because the peers run in a virtual environment of their own.
A contestant is a script. Alone it prints one JSON line a scenario. With `--serve` it reads commands
`{"scenario": NAME, "seconds": S}` from standard input and answers each with one such line, so that a
referee can interleave the measurements of several contestants: disks are noisy, and only figures taken
within the same seconds compare.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ONE_STEP = "one_step"
TEN_STEPS = "ten_steps"
HUNDRED_CONCURRENT = "hundred_concurrent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How many flows run at once, and how many sequential steps each has."""

    concurrent: int
    steps: int


SCENARIOS = {
    ONE_STEP: Scenario(concurrent=1, steps=1),
    TEN_STEPS: Scenario(concurrent=1, steps=10),
    HUNDRED_CONCURRENT: Scenario(concurrent=100, steps=10),
}

RunFlow = Callable[[int], Awaitable[None]]
"""Runs one flow of that many sequential steps to its end, every step durable before the next begins."""

OpenContestant = Callable[[Path], AbstractAsyncContextManager[RunFlow]]
"""Opens a contestant whose files all lie in that (empty) folder."""


async def _round(run_flow: RunFlow, scenario: Scenario) -> None:
    if scenario.concurrent == 1:
        await run_flow(scenario.steps)
    else:
        await asyncio.gather(*(run_flow(scenario.steps) for _ in range(scenario.concurrent)))


async def measure(run_flow: RunFlow, name: str, seconds: float) -> dict[str, object]:
    """Flows a second in the scenario `name`, over whole rounds that fill at least `seconds`, after one to warm up,
    which took `warm_up_s`."""
    scenario = SCENARIOS[name]
    begun = time.perf_counter()
    await _round(run_flow, scenario)
    warm_up = time.perf_counter() - begun
    rounds = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or rounds == 0:
        await _round(run_flow, scenario)
        rounds += 1
    flows = rounds * scenario.concurrent
    rate = flows / elapsed
    return {"scenario": name, "flows_per_s": rate, "flows": flows, "seconds": elapsed, "warm_up_s": warm_up}


async def _commands(stream: TextIO) -> AsyncIterator[tuple[str, float]]:
    while line := await asyncio.to_thread(stream.readline):
        command = json.loads(line)
        yield command["scenario"], command["seconds"]


async def _serve(open_contestant: OpenContestant, folder: Path, answers: TextIO) -> None:
    async with open_contestant(folder) as run_flow:
        gc.collect()
        gc.freeze()  # for everyone, as a server does: what was imported is not walked again and again
        print(json.dumps({"ready": True}), file=answers, flush=True)
        async for name, seconds in _commands(sys.stdin):
            print(json.dumps(await measure(run_flow, name, seconds)), file=answers, flush=True)


async def _print_all(open_contestant: OpenContestant, folder: Path, seconds: float, answers: TextIO) -> None:
    async with open_contestant(folder) as run_flow:
        for name in SCENARIOS:
            print(json.dumps(await measure(run_flow, name, seconds)), file=answers, flush=True)


@asynccontextmanager
async def _folder(parent: Path) -> AsyncIterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def main(open_contestant: OpenContestant, description: str) -> None:
    """The command line of a contestant's script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="databases are made (and removed) here")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each scenario is measured")
    parser.add_argument("--serve", action="store_true", help="answer commands from standard input")
    options = parser.parse_args()
    # Libraries that log to standard output must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr

    async def run() -> None:
        async with _folder(options.folder) as folder:
            if options.serve:
                await _serve(open_contestant, folder, answers)
            else:
                await _print_all(open_contestant, folder, options.seconds, answers)

    asyncio.run(run())
