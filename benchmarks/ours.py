"""Contexten Flow as a contestant: flows of trivial tasks through the public Python interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.contestant import SCENARIOS, RunFlow, main
from contexten.extensions.flow import FlowManager
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.settings import FlowSettings


class Stepper:
    """An agent that does what the peers' steps do: return a small value."""

    name = "stepper"
    agent_type = "stepper"
    tools = ("bench_step",)
    capacity = 1000

    async def run(self, task: TaskCall, _context: AttemptContext) -> dict[str, int]:
        return {"step": task.parameters["step"]}


def chain(steps: int) -> dict[str, Any]:
    """A definition of that many sequential tasks."""
    tasks = [
        {"name": f"step_{number}", "type": "step", "required_tools": ["bench_step"], "parameters": {"step": number}}
        for number in range(steps)
    ]
    return {"stages": [{"name": "work", "tasks": tasks}]}


@asynccontextmanager
async def open_ours(folder: Path) -> AsyncIterator[RunFlow]:
    """Our own engine as a contestant, at its default durability."""
    settings = FlowSettings(database=folder / "ours.sqlite3", max_concurrent_flows=100)
    async with FlowManager(agents=[Stepper()], settings=settings) as manager:
        flow_ids: dict[int, str] = {}
        for steps in sorted({scenario.steps for scenario in SCENARIOS.values()}):
            created = await manager.create_flow(name=f"{steps} steps", workflow_def=chain(steps))
            flow_ids[steps] = created["flow_id"]

        async def run_flow(steps: int) -> None:
            run = await manager.execute_flow(flow_ids[steps])
            if run["state"] != "completed" or run["output"][f"step_{steps - 1}"] != {"step": steps - 1}:
                raise RuntimeError(f"the run ended as {run}")

        yield run_flow


if __name__ == "__main__":
    main(open_ours, "measure Contexten Flow")
