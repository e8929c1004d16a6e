"""A flow whose agents work by ControlFlow: a tool counts, two agents agree on a text, a third task judges it.

    pip install 'contexten-flow[controlflow]'
    CONTEXTEN_FLOW_MODEL=openai/gpt-4o-mini OPENAI_API_KEY=... python examples/engines/controlflow_flow.py

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
    "name": "Product note",
    "description": "Write a short note about a product from what its makers know.",
    "context": {"instructions": "Write plain English, without superlatives."},
    "inputs": {
        "type": "object",
        "properties": {"facts": {"type": "array", "items": {"type": "string"}}},
        "required": ["facts"],
    },
    "stages": [
        {
            "name": "main",
            "tasks": [
                {
                    "name": "facts",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ inputs.facts }}", "query": "sort(@)"},
                },
                {
                    "name": "note",
                    "type": "agent",
                    "description": "Write a note of two sentences from the facts. The writer writes, the editor has "
                    "the last word.",
                    "parameters": {
                        "agent": {
                            "agents": [
                                {"name": "writer", "instructions": "You write; then you hand on to the editor."},
                                {"name": "editor", "instructions": "You shorten, and mark the task as successful."},
                            ],
                            "turn_strategy": "popcorn",
                            "max_turns": 10,
                        }
                    },
                },
                {
                    "name": "check",
                    "type": "agent",
                    "description": "Say whether the note keeps to the facts.",
                    "parameters": {"note": "{{ tasks.note.output }}", "facts": "{{ tasks.facts.output }}"},
                    "output_schema": {
                        "type": "object",
                        "properties": {"verdict": {"enum": ["fits", "invents"]}, "reason": {"type": "string"}},
                        "required": ["verdict", "reason"],
                    },
                },
            ],
        }
    ],
    "output": {"note": "{{ tasks.note.output }}", "verdict": "{{ tasks.check.output.verdict }}"},
}

FACTS = ["The kettle holds 1.2 litres.", "It is made of steel.", "It whistles."]


async def main() -> None:
    """Run the flow on a database in a temporary folder; print its output and what the models used."""
    with tempfile.TemporaryDirectory() as folder:
        async with FlowService(FlowSettings(database=Path(folder) / "flow.sqlite3")) as flows:
            run = await flows.run_flow(workflow_def=FLOW, inputs={"facts": FACTS}, framework="controlflow")
            print(run.state, json.dumps(run.output))
            for event in await flows.events(run.run_id):
                if event.type == "task.usage":
                    print(event.task, json.dumps(event.details))


if __name__ == "__main__":
    asyncio.run(main())
