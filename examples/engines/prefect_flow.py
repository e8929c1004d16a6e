"""A flow that Prefect shows: its run, its tasks, their states, retries and logs, in Prefect's pages and API.

    pip install 'contexten-flow[prefect]'
    python examples/engines/prefect_flow.py

PREFECT_API_URL (with PREFECT_API_KEY, or what `prefect cloud login` wrote) says where Prefect is. Without it a Prefect
server of this program's own is started in a temporary folder, which takes 10 to 20 s, and ends with it; --keep gives
time to look at its pages.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contexten.extensions.flow import FlowService
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.settings import FlowSettings

SHOWN_WITHIN_S = 120.0


class Weighbridge:
    """Weighs lorries. Its first try of each fails, so that there is a retry to be seen."""

    name = "weighbridge"
    agent_type = "scales"
    tools = ("weigh",)
    capacity = 2

    async def run(self, task: TaskCall, context: AttemptContext) -> Mapping[str, Any]:
        """Answer the weight in tons."""
        context.log("info", f"weighing {task.parameters['lorry']}")
        if context.attempt == 1:
            raise ConnectionError("the scales do not answer")
        return {"lorry": task.parameters["lorry"], "tons": 7 + len(task.parameters["lorry"])}


FLOW = {
    "name": "Weigh lorries",
    "tags": ["example"],
    "monitoring_required": True,
    "stages": [
        {
            "name": "weigh",
            "tasks": [
                {
                    "name": "weights",
                    "required_tools": ["weigh"],
                    "for_each": ["red", "blue", "green"],
                    "parameters": {"lorry": "{{ item }}"},
                    "retry": {"max_attempts": 3, "delay_s": 0.5},
                },
                {
                    "name": "total",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ tasks.weights.output }}", "query": "sum([].tons)"},
                },
            ],
        }
    ],
    "output": "{{ tasks.total.output }}",
}


async def main(keep_s: float) -> int:
    """Run the flow on a database in a temporary folder; print its output and the page on which Prefect shows it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = FlowSettings(database=Path(folder) / "flow.sqlite3", prefect_server=True)
        async with FlowService(settings, agents=[Weighbridge()]) as flows:
            run = await flows.run_flow(workflow_def=FLOW, framework="prefect")
            print(run.state, run.output)
            shown = await _shown(flows, run.run_id)
            if shown is None:
                print(f"Prefect did not show the run within {SHOWN_WITHIN_S:g} s.", file=sys.stderr)
                return 1
            print(shown)
            await asyncio.sleep(keep_s)
            return 0 if run.state == "completed" else 1


async def _shown(flows: FlowService, run_id: str) -> str | None:
    """The run's page in Prefect, when Prefect was told of it: that waits for nobody, and nobody for it."""
    try:
        async with asyncio.timeout(SHOWN_WITHIN_S):
            while (page := (await flows.get_run(run_id)).monitor_url) is None:
                await asyncio.sleep(0.1)
            return page
    except TimeoutError:
        return None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=float, default=0, metavar="SECONDS", help="how long to go on after the run [0]")
    try:
        sys.exit(asyncio.run(main(parser.parse_args().keep)))
    except FlowError as error:
        sys.exit(f"{error.message} {error.next or ''}".strip())
