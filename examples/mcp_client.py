"""What an agent does, as a program: start the server over stdio, save a flow, run it, wait for its end."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters

FLOW = {
    "stages": [
        {
            "name": "work",
            "tasks": [
                {"name": "rest", "type": "wait", "parameters": {"seconds": 0.5}},
                {
                    "name": "squares",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": [1, 2, 3], "expression": "data.map(n, n * n)"},
                },
            ],
        }
    ]
}


async def main() -> None:
    """Print each answer of the server."""
    with tempfile.TemporaryDirectory() as folder:
        server = StdioServerParameters(
            command=sys.executable,
            args=[
                "-m",
                "contexten_server",
                "serve",
                "--log-level",
                "warning",
                "--db",
                str(Path(folder) / "flow.sqlite3"),
            ],
        )
        async with Client(server) as client:

            async def call(tool: str, **arguments: object) -> dict[str, object]:
                answer = (await client.call_tool(tool, arguments)).structured_content or {}
                print(tool, json.dumps(answer, indent=2))
                return answer

            flow = await call("create_flow", name="Squares", workflow_def=FLOW)
            run = await call("execute_flow", flow_id=flow["flow_id"])
            await call("wait_for_flow", run_id=run["run_id"], timeout_s=20)
            await call("get_flow_status", run_id=run["run_id"], detail="output")


if __name__ == "__main__":
    anyio.run(main)
