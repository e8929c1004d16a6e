"""A flow whose tasks run on other machines: submitted to a Prefect work pool, followed in the journal here.

    pip install 'contexten-flow[prefect]'
    prefect server start                                                        # on one machine
    PREFECT_API_URL=http://HOST:4200/api contexten-flow worker --pool flows     # on each machine that is to work
    PREFECT_API_URL=http://HOST:4200/api python examples/engines/prefect_pool.py        # here

Nothing but the address of the API is shared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from contexten.extensions.flow import FlowService
from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.settings import FlowSettings

FLOW = {
    "name": "Count words",
    "inputs": {
        "type": "object",
        "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
        "required": ["texts"],
    },
    "stages": [
        {
            "name": "count",
            "tasks": [
                {
                    "name": "words",
                    "required_tools": ["data_processor"],
                    "for_each": "{{ inputs.texts }}",
                    "parameters": {"data": "{{ item }}", "expression": "size(data.split(' '))"},
                    "retry": {"max_attempts": 3},
                },
                {
                    "name": "total",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ tasks.words.output }}", "query": "sum(@)"},
                },
            ],
        }
    ],
    "output": {"words": "{{ tasks.words.output }}", "total": "{{ tasks.total.output }}"},
}
TEXTS = ["to be or not to be", "that is the question"]


async def main(pool: str, timeout_s: float) -> int:
    """Run the flow on a database in a temporary folder; print its output, and who made the attempts."""
    with tempfile.TemporaryDirectory() as folder:
        settings = FlowSettings(database=Path(folder) / "flow.sqlite3")
        async with FlowService(settings) as flows:
            run = await flows.execute_flow(
                workflow_def=FLOW, inputs={"texts": TEXTS}, framework="prefect", work_pool=pool
            )
            await flows.wait(run.run_id, timeout_s=timeout_s)
            run = await flows.get_run(run.run_id, detail="output")
            if run.state != "completed":
                print(run.state, run.error.message if run.error else f"in {timeout_s:g} s: is a worker there?")
                return 1
            print(run.state, json.dumps(run.output))
            for event in await flows.events(run.run_id):
                if event.type == "task.log":
                    print(event.task, (event.details or {})["message"])
            return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="flows", metavar="NAME", help="the work pool [flows]")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="how long to wait [120]")
    asked = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(asked.pool, asked.timeout)))
    except FlowError as error:
        sys.exit(f"{error.message} {error.next or ''}".strip())
