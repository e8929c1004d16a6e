"""DBOS's queue on SQLite, WAL and FULL: one-step workflows queued, then drained. Prints one JSON object."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from dbos import DBOS

from benchmarks.peers.dbos_peer import flow, open_dbos

TOGETHER = 100


async def measure(folder: Path, runs: int) -> dict[str, float]:
    """Queued and drained runs a second; DBOS drains while it is filled."""
    async with open_dbos(folder):
        queue = await DBOS.register_queue_async("bench", worker_concurrency=100, polling_interval_sec=0.1)
        start = time.perf_counter()
        handles = []
        for _ in range(runs // TOGETHER):
            handles += await asyncio.gather(*(queue.enqueue_async(flow, 1) for _ in range(TOGETHER)))
        enqueued = time.perf_counter()
        for handle in handles:
            await handle.get_result(polling_interval_sec=0.05)
        return {"enqueue_per_s": runs / (enqueued - start), "drain_per_s": runs / (time.perf_counter() - start)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--runs", type=int, default=1_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as place:
        print(json.dumps(asyncio.run(measure(Path(place), options.runs))))
