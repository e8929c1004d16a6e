"""An agent of your own: any object with a name, a type, tools and `async run(task, context)`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contexten.extensions.flow import FlowManager
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.settings import FlowSettings


class Librarian:
    """Counts words. It fails its first try, to show that a failed attempt is tried again."""

    name = "librarian"
    agent_type = "reading"
    tools = ("count_words",)
    capacity = 2

    async def run(self, task: TaskCall, context: AttemptContext) -> Mapping[str, Any]:
        """Answer JSON data; an exception fails the attempt."""
        if context.attempt == 1:
            raise ConnectionError("the library is closed for a moment")
        context.log("info", f"attempt {context.attempt}")
        return {"words": len(task.parameters["text"].split())}


FLOW = {
    "stages": [
        {
            "name": "read",
            "tasks": [
                {
                    "name": "count",
                    "type": "reading",
                    "required_tools": ["count_words"],
                    "parameters": {"text": "to be or not to be"},
                    "retry": {"max_attempts": 3, "delay_s": 0.1},
                }
            ],
        }
    ]
}


async def main() -> None:
    """Run the flow on a database in a temporary folder and print what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = FlowSettings(database=Path(folder) / "flow.sqlite3")
        async with FlowManager(agents=[Librarian()], settings=settings) as manager:
            flow = await manager.create_flow(name="Count words", workflow_def=FLOW)
            run = await manager.execute_flow(flow["flow_id"])
            print(run["state"], run["output"])


if __name__ == "__main__":
    asyncio.run(main())
