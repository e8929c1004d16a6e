"""Strands alone: a fresh agent a task, as one writes it that knows the library; one client for all of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.contestant import RunFlow, main

OBJECTIVE = "Say that you are done."


@cache
def _model() -> Any:
    from openai import AsyncOpenAI
    from strands.models.openai import OpenAIModel

    client = AsyncOpenAI(base_url=os.environ["BENCH_MODEL_URL"], api_key="none", max_retries=0)
    return OpenAIModel(client=client, model_id="scripted")


async def run_flow(steps: int) -> None:
    """So many tasks, one after another. The library is imported at the first."""
    from strands import Agent

    for _ in range(steps):
        agent = Agent(model=_model(), system_prompt="You work on one task.", callback_handler=None)
        result = await agent.invoke_async(OBJECTIVE)
        if str(result).strip() != "done":
            raise RuntimeError(f"the agent said {result}")


@asynccontextmanager
async def open_strands(_folder: Path) -> AsyncIterator[RunFlow]:
    """It keeps nothing."""
    yield run_flow


if __name__ == "__main__":
    main(open_strands, "measure Strands alone")
