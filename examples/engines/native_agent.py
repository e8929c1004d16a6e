"""An MCP server as an agent: a tool task asks it, and a language model is given its tools, on the native engine.

    pip install 'contexten-flow[strands]'
    CONTEXTEN_FLOW_MODEL=openai/gpt-4o-mini OPENAI_API_KEY=... python examples/engines/native_agent.py

The server is stock_server.py beside this file; any other goes into the same file of MCP servers.
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

SERVERS = {
    "mcpServers": {
        "stock": {
            "command": sys.executable,
            "args": [str(Path(__file__).with_name("stock_server.py"))],
            "timeout_s": 30,
        }
    }
}

FLOW = {
    "name": "Restock",
    "description": "Order more of what is running out.",
    "inputs": {
        "type": "object",
        "properties": {"least": {"type": "integer", "default": 10}},
    },
    "stages": [
        {
            "name": "main",
            "tasks": [
                {"name": "stock", "required_tools": ["mcp:stock/list_stock"]},
                {
                    "name": "scarce",
                    "required_tools": ["data_processor"],
                    "parameters": {
                        "data": {"articles": "{{ tasks.stock.output.articles }}", "least": "{{ inputs.least }}"},
                        "expression": "data.articles.filter(one, one.pieces < data.least)",
                    },
                },
                {
                    "name": "restock",
                    "type": "agent",
                    "description": "Order so many pieces of each of these articles that there are twice as many as "
                    "there must be at least. Then tell what was ordered.",
                    "required_tools": ["mcp:stock/order"],
                    "parameters": {
                        "articles": "{{ tasks.scarce.output }}",
                        "least": "{{ inputs.least }}",
                        "agent": {"instructions": "You buy for a shop.", "max_turns": 8},
                    },
                    "output_schema": {
                        "type": "object",
                        "properties": {
                            "orders": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {"article": {"type": "string"}, "pieces": {"type": "integer"}},
                                    "required": ["article", "pieces"],
                                },
                            }
                        },
                        "required": ["orders"],
                    },
                },
            ],
        }
    ],
    "output": {"scarce": "{{ tasks.scarce.output }}", "orders": "{{ tasks.restock.output.orders }}"},
}


async def main(least: int) -> int:
    """Run the flow on a database in a temporary folder; print its output and the calls of tools."""
    with tempfile.TemporaryDirectory() as folder:
        servers = Path(folder) / "mcp-servers.json"
        servers.write_text(json.dumps(SERVERS), encoding="utf-8")
        settings = FlowSettings(database=Path(folder) / "flow.sqlite3", mcp_servers=servers)
        async with FlowService(settings) as flows:
            run = await flows.run_flow(workflow_def=FLOW, inputs={"least": least}, framework="native")
            print(run.state, json.dumps(run.output if run.error is None else run.error.message))
            for event in await flows.events(run.run_id):
                if event.type == "task.tool_called":
                    print(event.task, "called", (event.details or {})["tool"])
            return 0 if run.state == "completed" else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--least", type=int, default=10, help="pieces of each article that there must be [10]")
    try:
        sys.exit(asyncio.run(main(parser.parse_args().least)))
    except FlowError as error:
        sys.exit(f"{error.message} {error.next or ''}".strip())
