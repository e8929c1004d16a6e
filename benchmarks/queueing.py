"""The queue: how fast runs are queued and drained, and what a decision costs with 1,000 and with 100,000 queued.

A process of its own. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.memory import HOLD, Holder
from benchmarks.ours import Stepper, chain
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store import Store
from contexten.extensions.flow.store.queue import Rules, claim
from contexten.extensions.flow.strategies import strategy_named

TOGETHER = 500
DECISIONS = 200
SHORT = 1_000


async def enqueue(service: FlowService, runs: int) -> float:
    """Queue so many runs; answers the seconds that it took until all were durable."""
    start = time.perf_counter()
    for _ in range(runs // TOGETHER):
        await asyncio.gather(*(service.execute_flow(flow_id="queued", priority=n % 5) for n in range(TOGETHER)))
    return time.perf_counter() - start


async def drained(folder: Path, runs: int) -> dict[str, float]:
    """Queue behind a held slot, then let go: seconds to queue, and seconds until the last run ended."""
    holder = Holder()
    holder.tools = ("bench_hold",)
    settings = FlowSettings(database=folder / "drain.sqlite3", max_concurrent_flows=1, stop_grace_s=0, cancel_grace_s=0)
    async with FlowService(settings, agents=[holder, Stepper()]) as service:
        await service.create_flow(workflow_def=HOLD, flow_id="hold")
        await service.create_flow(workflow_def=chain(1), flow_id="queued")
        held = await service.execute_flow(flow_id="hold")
        await holder.holding.wait()
        enqueue_s = await enqueue(service, runs)
        done = asyncio.Event()
        left = runs

        def heard(change: Any) -> None:
            nonlocal left
            if change.state == "completed":
                left -= 1
                if left == 0:
                    done.set()

        service.subscribe(heard)
        await service.set_strategy("priority")
        start = time.perf_counter()
        await service.control(held.run_id, "cancel")
        await service.set_strategy(max_concurrent_flows=100)
        await done.wait()
        return {"enqueue_per_s": runs / enqueue_s, "drain_per_s": runs / (time.perf_counter() - start)}


async def decision_us(folder: Path, queued: int, strategy: str) -> float:
    """The median microseconds of a change that claims the next run, less those of a change that does nothing."""
    path = folder / f"{strategy}-{queued}.sqlite3"
    settings = FlowSettings(database=path, strategy=strategy, durability="process")
    async with FlowService(settings, agents=[Stepper()], drive=False) as service:
        await service.set_strategy(strategy)
        await service.create_flow(workflow_def=chain(1), flow_id="queued")
        await enqueue(service, queued)
    store = Store(path, durability="process")
    await store.open()
    try:
        rules = Rules(
            strategy=strategy_named(strategy, aging_interval_s=60), max_concurrent_flows=10 * queued, load=0.0
        )
        change = partial(claim, owner="bench", at=time.time(), limit=1, rules=rules)
        nothing = await _median(store, lambda tx: tx.row("SELECT 1"))
        return 1e6 * (await _median(store, change) - nothing)
    finally:
        await store.close()


async def _median(store: Store, change: Any) -> float:
    times = []
    for _ in range(DECISIONS):
        start = time.perf_counter()
        await store.write(change)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def restart_s(folder: Path, queued: int) -> float:
    """Seconds to open a database with so many queued runs, until it answers."""
    path = folder / f"priority-{queued}.sqlite3"
    start = time.perf_counter()
    async with FlowService(FlowSettings(database=path, max_concurrent_flows=1), agents=[Stepper()]) as service:
        await service.scheduler()
        return time.perf_counter() - start


async def measure(folder: Path, runs: int, queued: int) -> dict[str, float]:
    """All of it."""
    found = await drained(folder, runs)
    found["short_us"] = await decision_us(folder, SHORT, "priority")
    found["long_us"] = await decision_us(folder, queued, "priority")
    found["short_backfill_us"] = await decision_us(folder, SHORT, "resource_aware")
    found["long_backfill_us"] = await decision_us(folder, queued, "resource_aware")
    found["restart_s"] = await restart_s(folder, queued)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--queued", type=int, default=100_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        print(json.dumps(asyncio.run(measure(Path(place), options.runs, options.queued))))
