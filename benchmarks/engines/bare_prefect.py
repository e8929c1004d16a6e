"""Prefect alone, in this process: a flow of trivial tasks, recorded by the API that PREFECT_API_URL names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from benchmarks.contestant import RunFlow, main


@cache
def _flow() -> Callable[[int], Awaitable[None]]:
    from prefect import flow, task

    @task
    async def step(number: int) -> dict[str, int]:
        return {"step": number}

    @flow(name="bare")
    async def steps_of(steps: int) -> None:
        for number in range(steps):
            await step(number)

    return steps_of


async def run_flow(steps: int) -> None:
    """One flow run. The library is imported at the first."""
    await _flow()(steps)


@asynccontextmanager
async def open_prefect(_folder: Path) -> AsyncIterator[RunFlow]:
    """It keeps nothing here."""
    yield run_flow


if __name__ == "__main__":
    main(open_prefect, "measure Prefect alone")
