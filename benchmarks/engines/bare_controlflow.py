"""ControlFlow alone, without Prefect: one flow, a task after another, one agent and one model for all of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.contestant import RunFlow, main
from contexten.extensions.flow.controlflow.library import Library

OBJECTIVE = "Say that you are done."


@cache
def _library() -> tuple[Library, Any]:
    """ControlFlow, imported so that it neither starts a server nor downloads anything; and an agent."""
    library = Library(with_prefect=False)
    model = library.ChatModel(
        model="scripted",
        base_url=os.environ["BENCH_MODEL_URL"],
        api_key="none",
        max_retries=0,
        disable_streaming=True,
    )
    return library, library.Agent(name="worker", model=model)


async def run_flow(steps: int) -> None:
    """One flow of so many tasks. The library is imported at the first."""
    library, agent = _library()
    flow = library.Flow(history=library.History(history={}))
    with flow.create_context():
        for _ in range(steps):
            task = library.Task(objective=OBJECTIVE, result_type=str, agents=[agent])
            await library.run_tasks_async(tasks=[task], flow=flow, handlers=[library.CallbackHandler(_ignore)])
            if task.result != "done":
                raise RuntimeError(f"the task ended as {task.status}: {task.result}")


def _ignore(event: object) -> None:
    """Its default handler prints."""


@asynccontextmanager
async def open_controlflow(_folder: Path) -> AsyncIterator[RunFlow]:
    """It keeps nothing."""
    yield run_flow


if __name__ == "__main__":
    main(open_controlflow, "measure ControlFlow alone")
