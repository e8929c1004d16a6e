"""Contexten Flow on the engine that BENCH_ENGINE names, as a contestant. `mcp` is a server's tool on the native one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from benchmarks.contestant import RunFlow, main
from benchmarks.ours import Stepper, chain
from benchmarks.server_process import BARE
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

DATABASE = "ours-{engine}.sqlite3"
OBJECTIVE = "Say that you are done."
POLL_S = 0.02


def _of_models(number: int) -> dict[str, Any]:
    return {"name": f"step_{number}", "type": "agent", "description": OBJECTIVE}


def _of_mcp(number: int) -> dict[str, Any]:
    return {"name": f"step_{number}", "required_tools": ["mcp:bare/noop"]}


def definition(engine: str, steps: int) -> dict[str, Any]:
    """A flow of so many sequential steps."""
    if engine == "prefect":
        return chain(steps)
    step = _of_mcp if engine == "mcp" else _of_models
    return {"stages": [{"name": "work", "tasks": [step(number) for number in range(steps)]}]}


async def _shown(client: httpx.AsyncClient, run_id: str) -> None:
    """Until Prefect shows that the run has completed."""
    body = {"flow_runs": {"idempotency_key": {"any_": [run_id]}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    while not (await client.post("/flow_runs/filter", json=body)).raise_for_status().json():
        await anyio.sleep(POLL_S)


@asynccontextmanager
async def open_ours(folder: Path) -> AsyncIterator[RunFlow]:
    """A service at its default durability."""
    engine = os.environ["BENCH_ENGINE"]
    servers = folder / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {"bare": {"command": sys.executable, "args": list(BARE)}}}))
    settings = FlowSettings(
        database=folder.parent / DATABASE.format(engine=engine),
        model="openai/scripted",
        model_base_url=os.environ.get("BENCH_MODEL_URL"),
        mcp_servers=servers if engine == "mcp" else None,
    )
    api = httpx.AsyncClient(base_url=os.environ.get("PREFECT_API_URL", ""), trust_env=False, timeout=60)
    async with api, FlowService(settings, agents=[Stepper()]) as service:
        created: set[int] = set()

        async def run_flow(steps: int) -> None:
            if steps not in created:
                created.add(steps)
                await service.create_flow(workflow_def=definition(engine, steps), flow_id=f"steps-{steps}")
            run = await service.run_flow(flow_id=f"steps-{steps}", framework="native" if engine == "mcp" else engine)
            if run.state != "completed":
                raise RuntimeError(f"the run ended as {run}")
            if engine == "prefect":
                await _shown(api, run.run_id)

        yield run_flow


if __name__ == "__main__":
    main(open_ours, "measure Contexten Flow on an engine")
