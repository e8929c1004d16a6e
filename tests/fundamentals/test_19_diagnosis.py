"""Something does not move, fails too often, or is slow: the call that names the cause, symptom by symptom.

The reference topic `troubleshooting` names the same calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

ONCE = {"max_attempts": 1}


class Worker:
    """An agent that does its work while it is up."""

    agent_type = "worker"
    capacity = 10

    def __init__(self, name: str, tool: str = "api", *, is_up: bool = True) -> None:
        self.name = name
        self.tools = (tool,)
        self.is_up = is_up

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        if not self.is_up:
            raise AttemptError("it is down", kind="network")
        return task.parameters


def task(tool: str, name: str = "job", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "work", "required_tools": [tool], **fields}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


def limited(settings: FlowSettings, **changes: Any) -> FlowSettings:
    return FlowSettings(**{**settings.model_dump(), **changes})


async def hold(flows: FlowService, gate: Gate, **fields: Any) -> str:
    """Start a run that waits at the gate, and wait until it is there."""
    run = await flows.execute_flow(workflow_def=flow(task("gate", **fields)))
    with anyio.fail_after(30):
        await gate.reached.wait()
    return run.run_id


async def cause(flows: FlowService, run_id: str) -> list[str] | None:
    return (await flows.explain(run_id=run_id)).waiting_for


# A flow does not execute
async def test_a_full_house_is_told_with_those_who_fill_it(settings: FlowSettings, gate: Gate) -> None:
    async with FlowService(limited(settings, max_concurrent_flows=1), agents=[gate]) as flows:
        holder = await hold(flows, gate)
        behind = (await flows.execute_flow(workflow_def=flow(task("gate")))).run_id
        assert await cause(flows, behind) == [f"a free slot (max_concurrent_flows is 1; held by {holder})"]
        gate.opened.set()


async def test_an_unfinished_dependency_is_named(settings: FlowSettings, gate: Gate) -> None:
    async with FlowService(settings, agents=[gate]) as flows:
        first = await hold(flows, gate)
        behind = (await flows.execute_flow(workflow_def=flow(task("gate")), dependencies=[first])).run_id
        assert await cause(flows, behind) == [f"run {first} to complete (it is running)"]
        gate.opened.set()


async def test_a_limit_of_the_flow_or_its_tag_is_named_with_who_uses_it_up(settings: FlowSettings, gate: Gate) -> None:
    async with FlowService(limited(settings, flow_limits={"one": 1}, tag_limits={"api": 1}), agents=[gate]) as flows:
        await flows.create_flow(flow_id="one", workflow_def=flow(task("gate")))
        await flows.create_flow(flow_id="two", workflow_def=flow(task("gate"), tags=["api"]))
        for flow_id, limit in (("one", "flow 'one'"), ("two", "tag 'api'")):
            first, second = [(await flows.execute_flow(flow_id=flow_id)).run_id for _ in range(2)]
            with anyio.fail_after(30):
                while (await flows.get_run(second)).held_by is None:  # the scheduler has not looked at it yet
                    await anyio.lowlevel.checkpoint()
            assert await cause(flows, second) == [f"the limit of {limit} (1 run at once; held by {first})"]
        gate.opened.set()


async def test_a_used_up_pool_is_named_and_holds_up_those_behind(settings: FlowSettings, gate: Gate) -> None:
    async with FlowService(limited(settings, pools={"gpu": 2}), agents=[gate]) as flows:
        holder = await hold(flows, gate, resources={"gpu": 2})
        next_one = (await flows.execute_flow(workflow_def=flow(task("gate", resources={"gpu": 1})))).run_id
        behind = (await flows.execute_flow(workflow_def=flow(task("gate")))).run_id
        assert await cause(flows, next_one) == [f"1 of pool 'gpu' (it has 2; held by {holder})"]
        assert await cause(flows, behind) == ["those before it in the queue"]
        assert (await flows.metrics()).scheduler["next_runs"] == [next_one, behind]  # so that is the one to ask about
        gate.opened.set()


async def test_a_crowded_agent_is_named_with_its_places(settings: FlowSettings, gate: Gate) -> None:
    gate.capacity = 1
    async with FlowService(settings, agents=[gate]) as flows:
        await hold(flows, gate)
        behind = await flows.execute_flow(workflow_def=flow(task("gate")))
        assert behind.state == "running"  # it has a slot: it is its task that waits
        assert await cause(flows, behind.run_id) == ["job: a free place of agent gate (1 of 1 taken)"]
        (view, *_) = (await flows.agents()).agents
        assert (view.name, view.running, view.capacity) == ("gate", 1, 1)
        gate.opened.set()


async def test_a_tool_that_nobody_offers_any_more_is_named(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    short = limited(settings, stop_grace_s=0)
    async with FlowService(short, agents=[gate]) as flows:
        run_id = await hold(flows, gate)
    async with FlowService(short) as flows:
        assert await cause(flows, run_id) == ["job: no agent of this process offers gate"]
        gate.opened.set()
        flows.add_agents([gate])
        assert (await end_of(flows, run_id)).state == "completed"


async def test_a_pause_is_told_with_its_reason(settings: FlowSettings, gate: Gate) -> None:
    async with FlowService(limited(settings, max_concurrent_flows=1), agents=[gate]) as flows:
        await hold(flows, gate)
        run_id = (await flows.execute_flow(workflow_def=flow(task("gate")))).run_id
        await flows.control(run_id, "pause", reason="the budget is spent")
        why = await flows.explain(run_id=run_id)
        assert why.summary == "Paused: the budget is spent."
        assert why.next == [f"control_flow(run_id={run_id!r}, action='resume')"]
        gate.opened.set()


async def test_where_no_server_lives_that_is_told(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        run = await flows.execute_flow(workflow_def=flow({"name": "job"}))
        why = await flows.explain(run_id=run.run_id)
        servers = (await flows.metrics()).scheduler["servers"]
    assert "no server runs on this database" in why.summary
    assert servers == []


async def test_an_open_circuit_is_told_with_its_time(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(limited(settings, circuit_failures=2), agents=[Worker("only", is_up=False)]) as flows:
        for _ in range(2):
            await end_of(flows, (await flows.execute_flow(workflow_def=flow(task("api", retry=ONCE)))).run_id)
        run_id = (await flows.execute_flow(workflow_def=flow(task("api")))).run_id
        (told,) = await cause(flows, run_id) or []
        (agent, _) = (await flows.agents()).agents
        assert agent.circuit is not None
        assert told.startswith("job: circuit of tool api open until ")
        assert (agent.name, agent.circuit.state) == ("only", "open")


async def test_a_used_up_rate_is_told_with_the_time_of_the_next_attempt(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(limited(settings, rate_limits={"api": "1/1h"}), agents=[Worker("only")]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(task("api")))).run_id)
        run_id = (await flows.execute_flow(workflow_def=flow(task("api")))).run_id
        (told,) = await cause(flows, run_id) or []
        rates = {tool.name: tool.rate_limit for tool in (await flows.agents()).tools}
    assert told.startswith("job: rate limit of tool api until ")
    assert rates["api"] == "1/3600s"


async def test_a_timer_and_a_retry_to_come_are_told_with_their_times(settings: FlowSettings) -> None:
    patient = {"delay_s": 3000, "max_delay_s": 3000, "jitter": 0}
    async with FlowService(settings, agents=[Worker("only", is_up=False)]) as flows:
        timer = {"name": "job", "type": "wait", "parameters": {"seconds": 3000}}
        for first, told in (
            (task("api", retry=patient), "job: attempt 1 failed (network: it is down); the next attempt at {}"),
            (timer, "job until {}"),
        ):
            run = await flows.execute_flow(workflow_def=flow(first))
            with anyio.fail_after(30):
                while run.state != "waiting":
                    run = await flows.wait(run.run_id, until="change", since=run.cursor)
            (view,) = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
            assert view.next_attempt_at is not None
            assert await cause(flows, run.run_id) == [told.format(view.next_attempt_at)]


# Many failures
async def test_failures_are_told_by_kind_agent_and_tool_also_where_retries_hide_them(
    settings: FlowSettings, end_of: EndOf
) -> None:
    agents = [Worker("shaky", is_up=False), Worker("sound", "other")]
    both = flow(task("api", "call", retry={"max_attempts": 3, "delay_s": 0}), task("other", "then"))
    both["stages"][0]["continue_on_task_failure"] = True
    async with FlowService(settings, agents=agents) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=both)).run_id)
        metrics = await flows.metrics()
    assert run.state == "completed"
    assert (metrics.flows["success_rate"], metrics.flows["failed_by_kind"]) == (1.0, {})
    failures = metrics.tasks["failures"]
    assert (failures["attempts"], failures["failed"]) == (4, 3)
    assert failures["by_kind"] == {"network": 3}
    assert failures["by_agent"] == {"shaky": {"network": 3}}
    assert failures["by_tool"] == {"api": {"network": 3}}


async def test_of_a_pipeline_the_tool_at_work_is_blamed(settings: FlowSettings, end_of: EndOf) -> None:
    pipeline = {"required_tools": ["json_parser", "data_processor"], "parameters": {"text": "{", "query": "@"}}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow({"name": "parse", **pipeline}))).run_id)
        metrics = await flows.metrics()
        (failed,) = [event for event in await flows.events(run.run_id) if event.type == "task.failed"]
    assert metrics.tasks["failures"]["by_tool"] == {"json_parser": {"invalid": 1}}
    assert metrics.flows["failed_by_kind"] == {"invalid": 1}
    assert failed.details is not None
    assert (failed.details["agent"], failed.details["tools"]) == ("builtin", ["json_parser"])


async def test_runs_that_never_started_for_a_failed_dependency_are_a_kind_of_their_own(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[gate, Worker("only", is_up=False)]) as flows:
        first = await flows.execute_flow(workflow_def=flow(task("gate", "wait"), task("api", retry=ONCE)))
        behind = await flows.execute_flow(workflow_def=flow({"name": "job"}), dependencies=[first.run_id])
        gate.opened.set()
        await end_of(flows, behind.run_id)
        metrics = await flows.metrics()
    assert metrics.flows["failed_by_kind"] == {"network": 1, "dependency_failed": 1}


async def test_a_failed_run_tells_what_recovery_did_and_the_call_to_make(settings: FlowSettings, end_of: EndOf) -> None:
    shaky = Worker("only", is_up=False)
    definition = flow(task("api", retry={"max_attempts": 2, "delay_s": 0.01, "jitter": 0}), id="calls")
    async with FlowService(settings, agents=[shaky]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        why = await flows.explain(run_id=run.run_id)
    assert why.failure is not None
    assert (why.failure["root_task"], why.failure["kind"], why.failure["attempts"]) == ("job", "network", 2)
    assert why.failure["recovery"] == [{"attempt": 1, "did": ["delay raised from 0.01 s to 0.02 s"]}]
    assert why.next is not None
    assert why.next[0] == f"control_flow(run_id={run.run_id!r}, action='retry')"


# Poor performance
async def test_full_slots_show_as_a_queue_and_a_dry_run_tells_what_more_slots_would_do(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    async with FlowService(limited(settings, max_concurrent_flows=1), agents=[gate]) as flows:
        await hold(flows, gate)
        runs = [(await flows.execute_flow(workflow_def=flow(task("gate")))).run_id for _ in range(3)]
        scheduler = (await flows.metrics()).scheduler
        assert (scheduler["running"], scheduler["max_concurrent_flows"], scheduler["queued"]) == (1, 1, 3)
        assert scheduler["waits"]["oldest_queued_s"] is not None
        gate.opened.set()
        for run_id in runs:
            await end_of(flows, run_id)
        waits = (await flows.metrics()).scheduler["waits"]
        assert waits["runs"] == 4
        assert 0 < waits["mean_s"] <= waits["p95_s"]
        waited = []
        for slots in (1, 4):
            forecast = (await flows.set_strategy(max_concurrent_flows=slots, dry_run=True)).forecast
            assert forecast is not None
            waited.append({figures.strategy: figures.mean_wait_s for figures in forecast.strategies}["fifo"])
        assert waited[0] > waited[1] == 0
        assert (await flows.scheduler()).max_concurrent_flows == 1


async def test_the_tasks_of_a_run_tell_which_was_tried_again_and_whose_output_is_large(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async def flaky(task: TaskCall, context: AttemptContext) -> str:
        if context.attempt < 3:
            raise ConnectionError("not yet")
        return "x" * 100_000

    definition = flow(task("flaky", "large", retry={"delay_s": 0}), {"name": "small", "preferred_agent_type": "tool"})
    async with FlowService(settings, agents=[flaky]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
        tasks = (await flows.get_run(run.run_id, detail="tasks")).tasks or []
        metrics = await flows.metrics()
    assert [(view.name, view.attempts, view.output_bytes) for view in tasks] == [("large", 3, 100_002), ("small", 1, 2)]
    assert metrics.tasks["retried"] == 1
    assert metrics.store["bytes"] > 100_000
