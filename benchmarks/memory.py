"""Memory: one run holds the only slot, 100,000 queue behind it; prints the resident size in MiB.

A process of its own, so that nothing else is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

import psutil

from benchmarks.ours import chain
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

TOGETHER = 500


class Holder:
    """An agent whose task goes on until it is cancelled: it holds the only slot."""

    name = "holder"
    agent_type = "holder"
    tools: tuple[str, ...] = ("bench_hold", "bench_step")
    capacity = 1

    def __init__(self) -> None:
        self.holding = asyncio.Event()

    async def run(self, _task: TaskCall, _context: AttemptContext) -> None:
        self.holding.set()
        await asyncio.Event().wait()


HOLD = {"stages": [{"name": "work", "tasks": [{"name": "hold", "type": "hold", "required_tools": ["bench_hold"]}]}]}


async def resident_mib(folder: Path, queued: int) -> dict[str, float]:
    """The process's resident size before and with `queued` runs in the queue."""
    process = psutil.Process()
    holder = Holder()
    settings = FlowSettings(database=folder / "memory.sqlite3", max_concurrent_flows=1, stop_grace_s=0)
    async with FlowService(settings, agents=[holder]) as service:
        await service.create_flow(workflow_def=HOLD, flow_id="hold")
        await service.create_flow(workflow_def=chain(10), flow_id="queued")
        await service.execute_flow(flow_id="hold")
        await holder.holding.wait()
        before = process.memory_info().rss
        for _ in range(queued // TOGETHER):
            await asyncio.gather(*(service.execute_flow(flow_id="queued") for _ in range(TOGETHER)))
        scheduled = (await service.list_runs(status="scheduled", limit=1)).data()
        if not scheduled["runs"]:
            raise RuntimeError("nothing is queued")
        return {"before_mib": before / 2**20, "resident_mib": process.memory_info().rss / 2**20}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--queued", type=int, default=100_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        print(json.dumps(asyncio.run(resident_mib(Path(place), options.queued))))
