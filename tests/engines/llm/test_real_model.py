"""A real language model drives tasks of the engines: that it works, not that so small a model is right.

`make test-llm` runs these, and installs the model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.views import RunView

from .conftest import RealModel

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.opt_in,
    pytest.mark.skipif(os.environ.get("CONTEXTEN_LLM") != "1", reason="a real model: `make test-llm` runs it"),
    pytest.mark.timeout(900),
]

REVIEW = "The cup is lovely, I use it every day and would buy it again."
VERDICT = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["positive", "negative"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "summary": {"type": "string", "minLength": 1, "maxLength": 60},
    },
    "required": ["mood", "stars", "summary"],
    "additionalProperties": False,
}


class Warehouse:
    """A tool of Python that the model may call."""

    name = "warehouse"
    agent_type = "shop"
    tools = ("stock_of",)

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        self.asked.append(dict(task.parameters))
        return {"in_stock": 7}


def flow(**task: Any) -> dict[str, Any]:
    work = {"name": "work", "type": "agent", "retry": {"max_attempts": 3, "delay_s": 0}, **task}
    return {"name": "Reviews of cups", "stages": [{"name": "main", "tasks": [work]}]}


async def run(
    model: RealModel, folder: Path, engine: str, definition: dict[str, Any], agents: Any = None
) -> tuple[RunView, dict[str, list[dict[str, Any]]]]:
    """The run when it has ended, and the details of its journal's entries by type."""
    settings = FlowSettings(
        database=folder / "flow.sqlite3",
        model="openai/smollm2-135m-instruct",
        model_base_url=model.server.url,
        model_timeout_s=300,
    )
    async with FlowService(settings, agents=agents) as flows:
        ended = await flows.run_flow(workflow_def=definition, framework=engine)
        told: dict[str, list[dict[str, Any]]] = {}
        for event in await flows.events(ended.run_id):
            told.setdefault(event.type, []).append(event.details or {})
        return await flows.get_run(ended.run_id, detail="output"), told


async def test_a_real_model_answers_a_task_of_strands_in_words(real_model: RealModel, tmp_path: Path) -> None:
    definition = flow(description=f"Say in one sentence what this customer thinks: {REVIEW}")
    ended, told = await run(real_model, tmp_path, "strands", definition)
    assert ended.state == "completed", ended
    assert ended.output["work"] == real_model.mind.words[-1].strip()
    assert all(usage["input_tokens"] > 0 and usage["output_tokens"] > 0 for usage in told["task.usage"])


@pytest.mark.parametrize("engine", ["strands", "controlflow"])
async def test_a_real_model_answers_in_the_structure_that_is_asked_for(
    real_model: RealModel, tmp_path: Path, engine: str
) -> None:
    definition = flow(description=f"Judge this review: {REVIEW}", output_schema=VERDICT)
    ended, told = await run(real_model, tmp_path, engine, definition)
    assert ended.state == "completed", (ended, real_model.mind.calls)
    verdict = ended.output["work"]
    assert verdict["mood"] in ("positive", "negative")
    assert 1 <= verdict["stars"] <= 5
    assert verdict["summary"]
    (usage,) = ended.usage or []
    assert usage.calls == len(told["task.model_called"]) == len(real_model.server.requests)
    assert usage.output_tokens > 10


@pytest.mark.parametrize("engine", ["strands", "controlflow"])
async def test_a_real_model_calls_a_tool_of_the_flow(real_model: RealModel, tmp_path: Path, engine: str) -> None:
    warehouse = Warehouse()
    definition = flow(
        description="Look with stock_of how many cups there are. Then judge the stock.",
        required_tools=["stock_of"],
        output_schema=VERDICT,
    )
    ended, told = await run(real_model, tmp_path, engine, definition, [warehouse])
    assert ended.state == "completed", (ended, real_model.mind.calls)
    assert len(warehouse.asked) == len(told["task.tool_called"]) == real_model.mind.calls.count("stock_of") > 0
    assert any("7" in result for result in real_model.server.requests[-1].results)
