"""A work pool with one worker: from the submission of a run to its task's start on the worker, and to the run's end.

Prints one JSON object. PREFECT_API_URL names the API. The task says by itself when it began.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import psutil

from benchmarks.referee import child_environment
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

POOL = "benchmark"
WITHIN_S = 120.0
PAUSE_S = 1.0  # between runs, as Prefect goes on with what it was told of the one before
TELLS_TIME = {
    "stages": [
        {
            "name": "work",
            "tasks": [{"name": "now", "required_tools": ["shell"], "parameters": {"argv": ["date", "+%s.%N"]}}],
        }
    ]
}


@contextmanager
def _worker(folder: Path) -> Iterator[psutil.Process]:
    environment = child_environment() | {"CONTEXTEN_FLOW_ALLOW_COMMANDS": "date", "HOME": str(folder)}
    command = [sys.executable, "-m", "contexten_server", "worker", "--pool", POOL, "--log-level", "warning"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


async def _online() -> None:
    """Until the pool has a worker."""
    async with httpx.AsyncClient(base_url=os.environ["PREFECT_API_URL"], trust_env=False, timeout=60) as api:
        with anyio.fail_after(WITHIN_S):
            while True:
                answer = await api.post(f"/work_pools/{POOL}/workers/filter", json={})
                if answer.is_success and answer.json():
                    return
                await anyio.sleep(0.05)


async def _run_s(service: FlowService) -> tuple[float, float]:
    await anyio.sleep(PAUSE_S)
    begun = time.time()
    run = await service.run_flow(workflow_def=TELLS_TIME, framework="prefect", work_pool=POOL)
    ended = time.time()
    if run.state != "completed":
        raise RuntimeError(f"the run ended as {run}")
    return float(run.output["now"]["stdout"]) - begun, ended - begun


async def measure(folder: Path, runs: int) -> dict[str, float]:
    """Medians of `runs` runs, one after another, after one that nobody counts; and how soon a worker is there."""
    settings = FlowSettings(database=folder / "pool.sqlite3", allow_commands=("date",))
    async with FlowService(settings) as service:
        begun = time.monotonic()
        with _worker(folder) as worker:
            await _online()
            online_s = time.monotonic() - begun
            await _run_s(service)
            times = [await _run_s(service) for _ in range(runs)]
            worker_mib = sum(one.memory_info().rss for one in (worker, *worker.children(recursive=True))) / 2**20
        return {
            "online_s": online_s,
            "start_ms": 1000 * statistics.median(start for start, _ in times),
            "end_ms": 1000 * statistics.median(end for _, end in times),
            "worker_mib": worker_mib,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(options.folder / "prefect"))
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as place:
        print(json.dumps(asyncio.run(measure(Path(place).resolve(), options.runs))))
