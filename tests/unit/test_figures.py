"""What get_metrics tells of failures and waits: exact figures, of the latest part of the journal only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.answers import figures
from contexten.extensions.flow.errors import AttemptError

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, EndOf, FakeClock, Turnstile

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}]}


def task(tool: str, name: str = "job", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": [tool], "retry": {"max_attempts": 2, "delay_s": 0}, **fields}


class Named:
    """One of several agents with the same tool; a bad one fails as an agent does."""

    agent_type = "any"
    tools = ("work",)
    capacity = 10

    def __init__(self, name: str, kind: str | None = None) -> None:
        self.name = name
        self.kind = kind

    async def run(self, task: TaskCall) -> str:
        if self.kind is not None:
            raise AttemptError("no", kind=self.kind)
        return self.name


async def test_the_agent_that_failed_is_blamed_though_another_one_finished_the_task(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[Named("bad", "agent_failure"), Named("good")]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task("work")))).run_id)
        failures = (await flows.metrics()).tasks["failures"]
    assert run.output == {"job": "good"}
    assert failures["by_agent"] == {"bad": {"agent_failure": 1}}
    assert (failures["attempts"], failures["failed"]) == (2, 1)


async def test_items_count_once_and_their_for_each_does_not_count_again(settings: FlowSettings, end_of: EndOf) -> None:
    items = task("work", for_each="[1, 2, 3]", continue_on_item_failure=False)
    async with FlowService(settings, agents=[Named("bad", "network")]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(items))).run_id)
        metrics = await flows.metrics()
    failures = metrics.tasks["failures"]
    assert failures["by_kind"] == {"network": failures["attempts"]}
    assert metrics.flows["failed_by_kind"] == {"network": 1}


async def test_those_with_the_most_failures_come_first(settings: FlowSettings, end_of: EndOf) -> None:
    async def steady(task: TaskCall, context: AttemptContext) -> None:
        raise AttemptError("once", kind="invalid")

    async with FlowService(settings, agents=[steady, Named("bad", "timeout")]) as flows:
        for tool in ("steady", "work", "work"):
            await end_of(flows, (await flows.execute_flow(workflow_def=flow(task(tool)))).run_id)
        failures = (await flows.metrics()).tasks["failures"]
    assert list(failures["by_tool"].items()) == [("work", {"timeout": 4}), ("steady", {"invalid": 1})]
    assert failures["by_kind"] == {"timeout": 4, "invalid": 1}


async def test_only_the_latest_part_of_the_journal_is_looked_at(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Named("bad", "invalid")
    async with FlowService(settings, agents=[bad], clock=clock) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(task("work")))).run_id)
        await clock.advance(100)
        bad.kind = None
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task("work")))).run_id)
        monkeypatch.setattr(figures, "ENTRIES", len(await flows.events(run.run_id)))
        metrics = await flows.metrics()
    failures = metrics.tasks["failures"]
    assert failures["since"] == "2030-01-01T00:01:40.000+00:00"
    assert (failures["attempts"], failures["failed"], failures["by_agent"]) == (1, 0, {})
    assert metrics.flows["failed_by_kind"] == {}
    assert metrics.flows["runs_by_state"] == {"failed": 1, "completed": 1}  # that is of all there are


async def test_waits_count_from_submission_to_start_of_runs_that_have_started(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    one_slot = FlowSettings(**{**settings.model_dump(), "max_concurrent_flows": 1})
    async with driven(one_slot, clock=clock) as flows:
        empty = (await flows.metrics()).scheduler["waits"]
        runs = [(await flows.execute_flow(workflow_def=flow(task("turn")))).run_id for _ in range(4)]
        for started in (1, 2):
            await turnstile.has_come(started)
            await clock.advance(10)
            turnstile.let_through(runs[started - 1])
        await turnstile.has_come(3)
        await clock.advance(1)
        waits = (await flows.metrics()).scheduler["waits"]
    assert empty == {"runs": 0, "mean_s": None, "p95_s": None, "oldest_queued_s": None}
    assert waits == {"runs": 3, "mean_s": 10.0, "p95_s": 19.0, "oldest_queued_s": 21.0}


async def test_the_tasks_of_a_run_tell_which_one_took_the_time(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    instant = {"name": "quick", "preferred_agent_type": "tool"}
    async with driven(settings, clock=clock) as flows:
        definition = flow(instant, task("turn", "slow"), {**instant, "name": "after"})
        run_id = (await flows.execute_flow(workflow_def=definition)).run_id
        await turnstile.has_come(1)
        await clock.advance(90)
        turnstile.let_through(run_id)
        run = await end_of(flows, run_id)
        tasks = (await flows.get_run(run_id, detail="tasks")).tasks or []
        plan = await flows.explain(flow_id=run.flow_id)
    assert {view.name: view.duration_s for view in tasks} == {"quick": 0.0, "slow": 90.0, "after": 0.0}
    assert plan.critical_path == ["quick", "slow", "after"]
