"""How long runs take: from history with its sample size, else a guess that says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.scheduling.estimates import of_durations, percentile

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {
    "stages": [
        {
            "name": "only",
            "tasks": [
                {"name": "short", "complexity": 2},
                {"name": "long", "type": "wait", "parameters": {"seconds": 8}, "complexity": 5},
            ],
        }
    ]
}


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [([4.0], 0.9, 4.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([0.0, 10.0], 0.9, 9.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5)],
)
def test_percentiles_interpolate_between_the_closest_ranks(
    values: list[float], fraction: float, expected: float
) -> None:
    assert percentile(values, fraction) == pytest.approx(expected)


def test_an_estimate_tells_its_sample_size() -> None:
    estimate = of_durations([3.0, 1.0, 2.0], "flow")
    assert (estimate.p50_s, estimate.samples, estimate.source) == (2.0, 3, "flow")


async def test_without_history_the_complexity_of_the_longest_chain_is_the_guess(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        why = await flows.explain(workflow_def=FLOW)
    assert why.estimate is not None
    assert (why.estimate.p50_s, why.estimate.samples, why.estimate.source) == (7.0, 0, "complexity")
    assert [view.task for view in why.slowest or ()] == ["long", "short"]
    assert "a guess" in why.summary


async def test_history_counts_by_version_once_there_is_enough_of_it(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        flow_id = (await flows.create_flow(workflow_def=FLOW)).flow_id

        async def run(seconds: float) -> None:
            run_id = (await flows.execute_flow(flow_id=flow_id)).run_id
            with anyio.fail_after(30):
                while (run := await flows.get_run(run_id)).state != "waiting":
                    await flows.wait(run_id, until="change", since=run.cursor)
            await clock.advance(seconds)
            assert (await end_of(flows, run_id)).state == "completed"

        await run(8)
        first = (await flows.explain(flow_id=flow_id)).estimate
        change = {"op": "replace", "path": "/stages/0/tasks/1/parameters/seconds", "value": 20}
        await flows.update_flow(flow_id, patch=[change])
        for _ in range(3):
            await run(20)
        await clock.advance(60)
        why = await flows.explain(flow_id=flow_id)
    assert first is not None
    assert (first.p50_s, first.samples, first.source) == (8.0, 1, "flow")
    assert why.estimate is not None
    assert (why.estimate.p50_s, why.estimate.samples, why.estimate.source) == (20.0, 3, "version")
    assert (why.slowest or [])[0].task == "long"


async def test_an_answer_counts_the_run_that_has_just_ended(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    one = {"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}
    async with FlowService(settings, clock=clock) as flows:
        flow_id = (await flows.create_flow(workflow_def=one)).flow_id
        for samples in range(3):  # the clock stands still
            why = await flows.explain(flow_id=flow_id)
            assert why.estimate is not None
            assert [view.samples for view in (why.estimate, *(why.slowest or ()))] == [samples, samples]
            await end_of(flows, (await flows.execute_flow(flow_id=flow_id)).run_id)


async def test_the_first_run_that_ends_makes_guesses_untrue_at_once(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    one = {"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}
    async with FlowService(settings, clock=clock) as flows:
        flow_id = (await flows.create_flow(workflow_def=one)).flow_id
        plan, version = await flows._plans.plan_of(flow_id, None)
        assert not (await flows._estimates.of_slot(flow_id, version, plan)).is_known
        await end_of(flows, (await flows.execute_flow(flow_id=flow_id)).run_id)
        assert (await flows._estimates.of_slot(flow_id, version, plan)).is_known


async def test_a_run_again_has_an_estimate_as_a_new_one_has(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    one = {"stages": [{"name": "only", "tasks": [{"name": "one"}]}]}
    async with FlowService(settings, clock=clock) as flows:
        flow_id = (await flows.create_flow(workflow_def=one)).flow_id
        run = await end_of(flows, (await flows.execute_flow(flow_id=flow_id)).run_id)
    async with FlowService(settings, drive=False, clock=clock) as flows:
        await flows.set_strategy("deadline_aware")
        again = await flows.control(run.run_id, "rerun_from", task="one")
        new = await flows.execute_flow(flow_id=flow_id)
    with closing(sqlite3.connect(settings.database)) as connection:
        found = dict(connection.execute("SELECT run_id, estimate_s FROM runs"))
    assert found[again.run_id] is not None
    assert found[again.run_id] == found[new.run_id]


async def test_a_forecast_counts_what_holds_a_slot_and_not_what_waits_for_a_time(
    settings: FlowSettings, clock: FakeClock, end_of: EndOf
) -> None:
    one_slot = settings.model_copy(update={"max_concurrent_flows": 1})
    async with FlowService(one_slot, clock=clock) as flows:
        flow_id = (await flows.create_flow(workflow_def=FLOW)).flow_id
        ids = [(await flows.execute_flow(flow_id=flow_id)).run_id for _ in range(5)]
        for run_id in ids:
            with anyio.fail_after(30):
                while (run := await flows.get_run(run_id)).state != "waiting":
                    await flows.wait(run_id, until="change", since=run.cursor)
        await clock.advance(8)
        for run_id in ids:
            await end_of(flows, run_id)
        forecast = (await flows.set_strategy("fifo", dry_run=True)).forecast
    assert forecast is not None
    assert forecast.from_history == 5
    assert forecast.strategies[0].makespan_s < 1
