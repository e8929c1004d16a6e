"""What agents tell of their attempts: the journal holds what it has entries for, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": ["tell"]}]}]}
KINDS = {"task.model_called", "task.tool_called", "task.tool_vetoed", "task.usage", "task.failed"}
HUGE = 2**53 + 1


class Told:
    """What a run's journal has of an attempt that recorded these entries, each twice."""

    def __init__(self, settings: FlowSettings, end_of: EndOf) -> None:
        self._settings = settings
        self._end_of = end_of

    async def of(self, *entries: tuple[Any, Any]) -> tuple[list[tuple[str, Any]], list[str]]:
        """The entries by type and data, and the lines of the log."""

        async def tell(_task: TaskCall, context: AttemptContext) -> str:
            for event, data in entries:
                context.record(event, data)
                context.record(event, data)
            return "done"

        async with FlowService(self._settings, agents={"tell": tell}) as flows:
            run = await self._end_of(flows, (await flows.execute_flow(workflow_def=FLOW)).run_id)
            assert (run.state, run.output) == ("completed", {"t": "done"})
            events = await flows.events(run.run_id)
            assert [event.type for event in events].count("run.completed") == 1
            assert (await flows.verify()).ok
        told = [(event.type, event.details) for event in events if event.type in KINDS]
        return told, [str((event.details or {})["message"]) for event in events if event.type == "task.log"]


@pytest.fixture
def told(settings: FlowSettings, end_of: EndOf) -> Told:
    return Told(settings, end_of)


async def test_an_entry_of_an_attempt_is_kept(told: Told) -> None:
    usage = {"model": "m", "model_calls": 2, "input_tokens": 3, "output_tokens": 0, "cost_usd": 0.5}
    called = {"tool": "x", "ok": True}
    entries, lines = await told.of(("task.usage", usage), ("task.tool_called", called))
    assert entries == [("task.usage", usage)] * 2 + [("task.tool_called", called)] * 2
    assert lines == []


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("run.completed", {}),
        ("task.failed", {"kind": "x"}),
        ("task.log", {"message": "x"}),
        (["x"], {}),
        (None, None),
        ("task.usage", ["model"]),
        ("task.usage", None),
    ],
)
async def test_what_is_no_entry_of_an_attempt_is_left_out_with_one_warning(told: Told, event: Any, data: Any) -> None:
    entries, (line,) = await told.of((event, data))
    assert entries == []
    assert line.startswith("the agent tell recorded what the journal cannot hold: ")


@pytest.mark.parametrize("count", ["many", -3, 1.5, True, HUGE, 10**30, None, [1], float("nan")])
async def test_a_count_that_is_none_is_left_out(told: Told, count: Any) -> None:
    usage = {"model": "m", "input_tokens": count, "output_tokens": 1}
    entries, (line,) = await told.of(("task.usage", usage))
    assert entries == [("task.usage", {"model": "m", "output_tokens": 1})] * 2
    assert line.endswith("task.usage with such input_tokens")


@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        ({"model": 7, "cost_usd": 1}, {"cost_usd": 1}),
        ({"model": "x" * 201}, {}),
        ({"model": "m", "cost_usd": float("inf")}, {"model": "m"}),
        ({"model": "m", "cost_usd": -0.1}, {"model": "m"}),
        ({"model": "m", "model_calls": "2"}, {"model": "m"}),
    ],
)
async def test_a_model_or_price_that_is_none_is_left_out(told: Told, usage: Any, kept: Any) -> None:
    entries, (line,) = await told.of(("task.usage", usage))
    assert entries == [("task.usage", kept)] * 2
    assert "task.usage with such" in line


async def test_the_sum_of_what_models_used_stays_a_number_that_can_be_kept(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async def tell(_task: TaskCall, context: AttemptContext) -> None:
        for _ in range(1100):  # more than 2**63 in all
            context.record("task.usage", {"model": "m", "model_calls": 2**53, "input_tokens": 2**53})

    async with FlowService(settings, agents={"tell": tell}) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=FLOW)).run_id)
        used = await flows._answers.usage(run.run_id) or []
    assert run.state == "completed"
    assert [(model.calls, model.input_tokens) for model in used] == [(2**53, 2**53)]


async def test_an_entry_is_what_it_was_when_it_was_told(settings: FlowSettings, end_of: EndOf) -> None:
    async def tell(_task: TaskCall, context: AttemptContext) -> None:
        data: dict[str, Any] = {"tool": "x", "arguments": {"a": 1}}
        context.record("task.tool_called", data)
        data["arguments"]["a"] = object()

    async with FlowService(settings, agents={"tell": tell}) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=FLOW)).run_id)
        (called,) = [event for event in await flows.events(run.run_id) if event.type == "task.tool_called"]
    assert called.details == {"tool": "x", "arguments": {"a": 1}}
