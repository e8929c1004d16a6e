"""LangGraph with its SQLite checkpointer, durability "sync": chains of trivial async nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.contestant import SCENARIOS, RunFlow, main


class State(TypedDict):
    step: int


async def step(state: State) -> State:
    return {"step": state["step"] + 1}


def _chain(steps: int, saver: AsyncSqliteSaver) -> Any:
    graph = StateGraph(State)
    names = [f"step_{number}" for number in range(steps)]
    for name in names:
        graph.add_node(name, step)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


@asynccontextmanager
async def open_langgraph(folder: Path) -> AsyncIterator[RunFlow]:
    """LangGraph as a contestant."""
    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.sqlite3")) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA journal_mode=WAL")
        await saver.conn.execute("PRAGMA synchronous=FULL")
        graphs = {steps: _chain(steps, saver) for steps in {scenario.steps for scenario in SCENARIOS.values()}}
        flows = 0

        async def run_flow(steps: int) -> None:
            nonlocal flows
            flows += 1
            config = {"configurable": {"thread_id": f"flow-{flows}"}}
            result = await graphs[steps].ainvoke({"step": 0}, config, durability="sync")
            if result != {"step": steps}:
                raise RuntimeError(f"the flow ended with {result}")

        yield run_flow


if __name__ == "__main__":
    main(open_langgraph, "measure LangGraph with its SQLite checkpointer")
