"""A flow in which a language model does one task: tools gather and count, the model judges, in a structure.

    pip install 'contexten-flow[strands]'
    CONTEXTEN_FLOW_MODEL=openai/gpt-4o-mini OPENAI_API_KEY=... python examples/engines/strands_flow.py

Any OpenAI-compatible server does as well: set CONTEXTEN_FLOW_MODEL_BASE_URL to where it is.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from contexten.extensions.flow import FlowService
from contexten.extensions.flow.settings import FlowSettings

FLOW = {
    "name": "Reviews",
    "description": "Sort customers' reviews, and say what to do about the bad ones.",
    "inputs": {
        "type": "object",
        "properties": {"reviews": {"type": "array", "items": {"type": "object"}}},
        "required": ["reviews"],
    },
    "stages": [
        {
            "name": "main",
            "tasks": [
                {
                    "name": "bad",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ inputs.reviews }}", "query": "[?stars < `3`]"},
                },
                {
                    "name": "judge",
                    "type": "agent",
                    "description": "Find what these customers complain of most, and propose one thing to do about it. "
                    "Count with the tool, do not guess.",
                    "required_tools": ["data_processor"],
                    "parameters": {
                        "reviews": "{{ tasks.bad.output }}",
                        "agent": {"instructions": "You work in customer care. Be brief and fair.", "max_turns": 8},
                    },
                    "output_schema": {
                        "type": "object",
                        "properties": {"complaint": {"type": "string"}, "action": {"type": "string"}},
                        "required": ["complaint", "action"],
                    },
                    "retry": {"max_attempts": 3},
                },
            ],
        }
    ],
    "output": {"bad": "{{ size(tasks.bad.output) }}", "action": "{{ tasks.judge.output.action }}"},
}

REVIEWS = [
    {"stars": 5, "text": "Lovely cup."},
    {"stars": 1, "text": "It came broken."},
    {"stars": 2, "text": "Nice, but the handle was broken off."},
]


async def main() -> None:
    """Run the flow on a database in a temporary folder; print its output and what the model used."""
    with tempfile.TemporaryDirectory() as folder:
        async with FlowService(FlowSettings(database=Path(folder) / "flow.sqlite3")) as flows:
            run = await flows.run_flow(workflow_def=FLOW, inputs={"reviews": REVIEWS}, framework="strands")
            print(run.state, json.dumps(run.output))
            for event in await flows.events(run.run_id):
                if event.type in {"task.tool_called", "task.usage"}:
                    print(event.type, json.dumps(event.details))


if __name__ == "__main__":
    asyncio.run(main())
