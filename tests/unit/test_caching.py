"""How long a recorded output serves, and whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.agents.registry import Worker
from contexten.extensions.flow.agents.staff import Staff
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.execution import caching

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio


class Counter:
    """Answers how often it was asked; waits for others first where it is told to."""

    name = "counter"
    agent_type = "test"
    tools: Sequence[str] = ("count",)
    capacity = 10

    def __init__(self) -> None:
        self.asked = 0
        self.here = anyio.Event()

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        self.asked += 1
        if self.asked >= task.parameters.get("together", 0):
            self.here.set()
        if "together" in task.parameters:
            await self.here.wait()
        return {"number": self.asked, "filler": "x" * task.parameters.get("size", 0)}


def flow(ttl_s: float = 60, **parameters: Any) -> dict[str, Any]:
    task = {"name": "ask", "type": "t", "required_tools": ["count"], "cache": {"key": "k", "ttl_s": ttl_s}}
    return {
        "stages": [{"name": "s", "tasks": [task | {"parameters": parameters}]}],
        "output": "{{ tasks.ask.output.number }}",
    }


@pytest.mark.parametrize(("later_s", "expected"), [(0, 1), (60, 1), (61, 2), (-10, 1)])
async def test_an_output_serves_for_ttl_s_and_no_longer(
    settings: FlowSettings, clock: FakeClock, later_s: float, expected: int
) -> None:
    async with FlowService(settings, agents=[Counter()], clock=clock) as flows:
        assert (await flows.run_flow(workflow_def=flow())).output == 1
        clock.wall += later_s
        second = await flows.run_flow(workflow_def=flow())
        (event,) = [e for e in await flows.events(second.run_id) if e.type == "task.completed"]
    assert second.output == expected
    if expected == 1:
        assert (event.details or {})["age_s"] == max(0, later_s)


async def test_who_asks_says_how_old_an_output_may_be(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, agents=[Counter()], clock=clock) as flows:
        await flows.run_flow(workflow_def=flow(ttl_s=3600))
        clock.wall += 100
        assert (await flows.run_flow(workflow_def=flow(ttl_s=200))).output == 1
        assert (await flows.run_flow(workflow_def=flow(ttl_s=50))).output == 2
        assert (await flows.run_flow(workflow_def=flow(ttl_s=3600))).output == 2


async def test_a_newer_output_takes_the_place_of_the_older(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, agents=[Counter()], clock=clock) as flows:
        for expected in (1, 2):
            assert (await flows.run_flow(workflow_def=flow())).output == expected
            clock.wall += 61
        clock.wall -= 60
        assert (await flows.run_flow(workflow_def=flow())).output == 2
        assert (await flows.metrics()).tasks["cache_entries"] == 1


async def test_outputs_whose_time_is_over_are_pruned_with_what_they_kept(
    settings: FlowSettings, clock: FakeClock
) -> None:
    async with FlowService(settings, agents=[Counter()], clock=clock) as flows:
        await flows.run_flow(workflow_def=flow(ttl_s=60, size=100_000))
        clock.wall += 30 * 86_400 + 3600  # the run is too old as well
    async with FlowService(settings, agents=[Counter()], clock=clock) as flows:
        with anyio.fail_after(30):
            while (await flows.metrics()).tasks["cache_entries"] or (await flows.list_runs()).runs:
                await clock.advance(1)
        assert (await flows.verify()).ok
        (blobs,) = (await flows._store.row("SELECT count(*) FROM blobs")) or (None,)
        assert blobs == 0


async def test_what_is_still_good_outlives_its_run(settings: FlowSettings, clock: FakeClock) -> None:
    first, second = Counter(), Counter()
    async with FlowService(settings, agents=[first], clock=clock) as flows:
        await flows.run_flow(workflow_def=flow(ttl_s=90 * 86_400, size=100_000))
        clock.wall += 31 * 86_400
    async with FlowService(settings, agents=[second], clock=clock) as flows:
        with anyio.fail_after(30):
            while (await flows.list_runs()).runs:
                await clock.advance(1)
        assert (await flows.run_flow(workflow_def=flow(ttl_s=90 * 86_400, size=100_000))).output == 1
    assert second.asked == 0


async def test_of_two_equal_tasks_at_once_both_run(settings: FlowSettings, end_of: EndOf) -> None:
    counter = Counter()
    async with FlowService(settings, agents=[counter]) as flows:
        runs = [await flows.execute_flow(workflow_def=flow(together=2)) for _ in range(2)]
        for run in runs:
            assert (await end_of(flows, run.run_id)).state == "completed"
        assert (await flows.metrics()).tasks["cache_entries"] == 1
    assert counter.asked == 2


async def test_an_output_that_does_not_fit_the_askers_schema_is_a_miss(settings: FlowSettings) -> None:
    counter = Counter()
    strict = flow()
    strict["stages"][0]["tasks"][0]["output_schema"] = {"properties": {"number": {"minimum": 2}}}
    async with FlowService(settings, agents=[counter]) as flows:
        assert (await flows.run_flow(workflow_def=flow())).output == 1
        assert (await flows.run_flow(workflow_def=strict)).output == 2
        assert (await flows.run_flow(workflow_def=strict)).output == 2  # the newer output serves both
        assert (await flows.run_flow(workflow_def=flow())).output == 2


async def test_tasks_whose_parameters_are_written_otherwise_share_no_output(settings: FlowSettings) -> None:
    counter = Counter()
    async with FlowService(settings, agents=[counter]) as flows:
        assert (await flows.run_flow(workflow_def=flow(size=1))).output == 1
        assert (await flows.run_flow(workflow_def=flow(size=2))).output == 2
        assert (await flows.run_flow(workflow_def=flow(size=1))).output == 1


async def test_an_output_is_kept_under_the_key_that_was_looked_up(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(Counter):
        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            monkeypatch.setattr(caching, "_key", fail)  # what the key is made of is not there any more
            return await super().run(task, context)

    def fail(*_arguments: object) -> str:
        raise AttemptError("gone", kind="invalid")

    counter = Breaking()
    async with FlowService(settings, agents=[counter]) as flows:
        with anyio.fail_after(30):
            assert (await flows.run_flow(workflow_def=flow())).state == "completed"
        monkeypatch.undo()
        assert (await flows.run_flow(workflow_def=flow())).output == 1
    assert counter.asked == 1


@pytest.mark.parametrize("other", [{"description": "Translate it"}, {"preferred_agent_type": "test"}])
async def test_an_output_serves_no_task_that_asks_for_something_else_or_somebody_else(
    settings: FlowSettings, other: dict[str, Any]
) -> None:
    first, second = flow(), flow()
    first["stages"][0]["tasks"][0] |= {"description": "Summarise it"}
    second["stages"][0]["tasks"][0] |= {"description": "Summarise it"} | other
    async with FlowService(settings, agents=[Counter()]) as flows:
        assert (await flows.run_flow(workflow_def=first)).output == 1
        assert (await flows.run_flow(workflow_def=second)).output == 2
        assert (await flows.run_flow(workflow_def=first)).output == 1


async def test_what_one_engine_made_serves_no_run_of_another(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter()
    async with FlowService(settings, agents=[counter]) as flows:
        await flows.create_flow(workflow_def=flow(), flow_id="x")
        assert (await flows.run_flow(flow_id="x")).output == 1
        monkeypatch.setattr(Staff, "worker", lambda _staff, _task: Worker(counter))
        assert (await flows.run_flow(flow_id="x")).output == 2
        assert (await flows.run_flow(flow_id="x")).output == 2
        monkeypatch.undo()
        assert (await flows.run_flow(flow_id="x")).output == 1
