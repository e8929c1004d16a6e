"""An agent of Strands that has Contexten Flow as its tools: it composes a flow, runs it, and watches it to its end.

    pip install 'contexten-flow[strands]'
    OPENAI_API_KEY=... MODEL=gpt-4o-mini python examples/engines/strands_client.py "Square the numbers 1 to 5 in a flow"

It starts a server of its own over stdio; with --url it talks to one that serves HTTP, such as
http://127.0.0.1:8377/mcp. OPENAI_BASE_URL names another OpenAI-compatible server of models.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from strands import Agent
from strands.models.openai import OpenAIModel
from strands.tools.mcp import MCPClient

INSTRUCTIONS = """You drive a workflow orchestrator by its tools.
Compose a flow as data with create_flow, and mend it where the answer tells of issues. Start it with execute_flow, then
call wait_for_flow until it has ended. Read its output with get_flow_status (detail: output) and tell it."""


def server(url: str | None, folder: str) -> dict[str, Any]:
    """One entry of the mcpServers format."""
    if url is not None:
        return {"url": url}
    database = str(Path(folder) / "flow.sqlite3")
    return {"command": sys.executable, "args": ["-m", "contexten_server", "serve", "--db", database]}


def main() -> None:
    """Print each tool that the agent calls, and what it says at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request")
    parser.add_argument("--url", help="of a server that serves streamable HTTP")
    asked = parser.parse_args()
    model = OpenAIModel(
        client_args={
            "api_key": os.environ.get("OPENAI_API_KEY", "none"),
            "base_url": os.environ.get("OPENAI_BASE_URL"),
        },
        model_id=os.environ.get("MODEL", "gpt-4o-mini"),
    )
    with tempfile.TemporaryDirectory() as folder:
        (client,) = MCPClient.load_servers({"flow": server(asked.url, folder)})
        with client:
            tools = client.list_tools_sync()
            agent = Agent(model=model, tools=[*tools], system_prompt=INSTRUCTIONS, callback_handler=None)
            result = agent(asked.request, limits={"turns": 20})
            for message in agent.messages:
                for block in message["content"]:
                    if "toolUse" in block:
                        print("->", block["toolUse"]["name"])
            print(str(result).strip())


if __name__ == "__main__":
    main()
