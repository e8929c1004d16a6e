"""What history tells of what ended, by flow, day, kind of error, agent and tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError, FlowNotFound, InvalidArguments
from contexten.extensions.flow.history import history as module

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}]}


def task(tool: str, name: str = "job", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": [tool], "retry": {"max_attempts": 2, "delay_s": 0}, **fields}


async def steady(task: TaskCall, context: AttemptContext) -> str:
    context.record("task.usage", {"model": "m", "input_tokens": 100, "output_tokens": 10, "cost_usd": 0.25})
    return "done"


async def shaky(task: TaskCall, context: AttemptContext) -> str:
    if context.attempt == 1:
        raise AttemptError("not yet", kind="network")
    return "done"


async def broken(task: TaskCall) -> str:
    raise AttemptError("never", kind="invalid")


AGENTS = [steady, shaky, broken]


async def test_runs_are_told_by_flow_with_their_rate_retries_and_cost(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings, agents=AGENTS) as flows:
        await flows.create_flow(workflow_def=flow(task("steady"), task("shaky", "other")), flow_id="good")
        await flows.create_flow(workflow_def=flow(task("broken")), flow_id="bad")
        for flow_id in ("good", "good", "bad"):
            await end_of(flows, (await flows.execute_flow(flow_id=flow_id)).run_id)
        good, bad = (await flows.history.report("flow")).rows
    assert (good.key, good.runs, good.completed, good.failed, good.success_rate) == ("good", 2, 2, 0, 1.0)
    assert (good.retries, good.input_tokens, good.output_tokens, good.cost_usd) == (2, 200, 20, 0.5)
    assert good.failures == {}
    assert good.tasks is None
    assert (bad.key, bad.runs, bad.failed, bad.success_rate, bad.retries) == ("bad", 1, 1, 0.0, 0)
    assert bad.failures == {"invalid": 1}
    assert bad.cost_usd is None


async def test_a_sub_flow_is_no_run_of_its_own_and_its_cost_is_its_root_s(
    settings: FlowSettings, end_of: EndOf
) -> None:
    call = {"name": "call", "type": "flow", "parameters": {"flow_id": "inner"}}
    async with FlowService(settings, agents=AGENTS) as flows:
        await flows.create_flow(workflow_def=flow(task("steady"), task("shaky", "other")), flow_id="inner")
        await flows.create_flow(workflow_def=flow(call), flow_id="outer")
        await end_of(flows, (await flows.execute_flow(flow_id="outer")).run_id)
        (row,) = (await flows.history.report("flow")).rows
        by_agent = {row.key: row for row in (await flows.history.report("agent")).rows}
    assert (row.key, row.runs, row.retries, row.input_tokens) == ("outer", 1, 1, 100)
    assert {name: row.tasks for name, row in by_agent.items()} == {"steady": 1, "shaky": 1}


async def test_percentiles_are_nearest_ranks_of_durations_and_waits(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, agents=AGENTS, drive=False, clock=clock) as flows:
        await flows.create_flow(workflow_def=flow(task("steady")), flow_id="some")
        run_ids = [(await flows.execute_flow(flow_id="some")).run_id for _ in range(20)]
        await _end_by_hand(flows, run_ids)
        (row,) = (await flows.history.report("flow", until="2031-01-01")).rows
    assert (row.runs, row.p50_s, row.p95_s) == (20, 10.0, 19.0)
    assert (row.wait_p50_s, row.wait_p95_s) == (100.0, 190.0)


async def _end_by_hand(flows: FlowService, run_ids: list[str]) -> None:
    """The n-th run waited for 10n s and took n s."""

    def change(tx: Any) -> None:
        for number, run_id in enumerate(run_ids, 1):
            tx.execute(
                "UPDATE runs SET state = 'completed', started_at = created_at + ?1 * 10, "
                "ended_at = created_at + ?1 * 11 WHERE run_id = ?2",
                (number, run_id),
            )

    await flows._store.write(change)


async def test_days_are_those_of_utc_the_latest_first_and_a_span_keeps_the_rest_out(
    settings: FlowSettings, clock: FakeClock
) -> None:
    async with FlowService(settings, agents=AGENTS, drive=False, clock=clock) as flows:
        await flows.create_flow(workflow_def=flow(task("steady")), flow_id="some")
        for _ in range(3):
            run = await flows.execute_flow(flow_id="some")
            await flows.control(run.run_id, "cancel")
            clock.wall += 86_400
        every = await flows.history.report("day")
        some = await flows.history.report("day", since="2030-01-02", until="2030-01-03T00:00:00+00:00")
        ago = await flows.history.report("day", since="36h")
    assert [row.key for row in every.rows] == ["2030-01-03", "2030-01-02", "2030-01-01"]
    assert every.rows[0].cancelled == 1
    assert every.rows[0].success_rate is None
    assert every.rows[0].p50_s is None
    assert [row.key for row in some.rows] == ["2030-01-02"]
    assert [row.key for row in ago.rows] == ["2030-01-03"]


async def test_agents_and_tools_are_told_by_the_tasks_they_had_a_part_in(settings: FlowSettings, end_of: EndOf) -> None:
    tools = {"name": "both", "type": "t", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}
    async with FlowService(settings, agents=AGENTS) as flows:
        items = task("shaky", "each", for_each="[1, 2, 3]")
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(items, task("steady"), tools))).run_id)
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(task("broken")))).run_id)
        agents = {row.key: row for row in (await flows.history.report("agent")).rows}
        by_tool = {row.key: row for row in (await flows.history.report("tool")).rows}
        kinds = (await flows.history.report("kind")).rows
    assert (agents["shaky"].tasks, agents["shaky"].attempts, agents["shaky"].retries) == (3, 6, 3)
    assert (agents["steady"].cost_usd, agents["steady"].input_tokens) == (0.25, 100)
    assert agents["broken"].failures == {"invalid": 1}
    assert agents["broken"].runs is None
    assert (by_tool["shaky"].tasks, by_tool["steady"].cost_usd) == (3, 0.25)
    assert by_tool["data_processor"].success_rate == 1.0
    assert [(row.key, row.runs, row.failed) for row in kinds] == [("invalid", 1, 1)]


async def test_past_its_bound_only_what_ended_last_is_looked_at_and_that_is_said(
    settings: FlowSettings, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    async with FlowService(settings, agents=AGENTS) as flows:
        await flows.create_flow(workflow_def=flow(task("steady")), flow_id="some")
        for _ in range(3):
            await end_of(flows, (await flows.execute_flow(flow_id="some")).run_id)
        found = await flows.history.report("flow")
    assert found.is_cut
    assert found.rows[0].runs == 2


async def test_wrong_arguments_are_refused_with_their_place(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        for given, path in (
            ({"by": "flows"}, "/by"),
            ({"since": "yesterday"}, "/since"),
            ({"since": "2030-02-01", "until": "2030-01-01"}, "/since"),
            ({"until": 1e300}, "/until"),
            ({"limit": 0}, "/limit"),
        ):
            with pytest.raises(InvalidArguments) as refused:
                await flows.history.report(**given)
            assert [issue.path for issue in refused.value.issues] == [path]
        with pytest.raises(FlowNotFound):
            await flows.history.report(flow_id="nobody")
