"""on_failure tasks where no run drives them: in plans, demands, queues, and among what is kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.definition import Plan, WorkflowDefinition, compile_plan
from contexten.extensions.flow.execution.compensation import Compensation
from contexten.extensions.flow.execution.progression import Verdict
from contexten.extensions.flow.flows.planview import critical_path, plan_view
from contexten.extensions.flow.scheduling.demands import pool_demands
from contexten.extensions.flow.states import TaskState
from contexten.extensions.flow.store import Transaction
from contexten.extensions.flow.store.retention import prune_flows

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "s", "tasks": list(tasks), "execution_mode": "parallel"}], **fields}


def plan_of(raw: dict[str, Any]) -> Plan:
    return compile_plan(WorkflowDefinition.model_validate_json(json.dumps(raw)))


THREE = flow(
    {"name": "a", "on_failure": [{"name": "a_1"}, {"name": "a_2"}]},
    {"name": "b", "on_failure": [{"name": "b_1"}]},
    on_failure=[{"name": "all"}],
)


def walk(finished: dict[str, TaskState] | None = None, started: tuple[str, ...] = ()) -> Compensation:
    return Compensation(plan_of(THREE), finished or {}, started, lambda node: True)


def test_one_is_ready_at_a_time_in_the_order_of_the_failures() -> None:
    compensation = walk()
    compensation.begin(["b", "a"], has_run_failed=True)
    ran = []
    while not compensation.is_done:
        ((task, verdict, _),) = compensation.decide()
        assert verdict is Verdict.READY
        assert list(compensation.decide()) == []
        ran.append(task)
        compensation.finish(task, TaskState.FAILED if task == "a_1" else TaskState.COMPLETED)
    assert ran == ["b_1", "a_1", "a_2", "all"]
    assert compensation.failures == ["a_1"]


def test_what_ended_before_a_restart_is_not_decided_again() -> None:
    compensation = walk({"b_1": TaskState.FAILED, "a": TaskState.FAILED}, started=("a_1",))
    compensation.begin(["b", "a"], has_run_failed=False)
    assert [(task, verdict) for task, verdict, _ in compensation.decide()] == [("all", Verdict.SKIPPED)]
    compensation.finish("a_1", TaskState.COMPLETED)
    assert [task for task, _, _ in compensation.decide()] == ["a_2"]
    compensation.finish("a_2", TaskState.COMPLETED)
    assert compensation.is_done
    assert compensation.failures == ["b_1"]


def test_one_that_ends_before_the_walk_begins_is_not_lost() -> None:
    compensation = walk(started=("b_1",))
    compensation.finish("b_1", TaskState.COMPLETED)  # its timer rang first
    compensation.begin(["b"], has_run_failed=False)
    assert {verdict for _, verdict, _ in compensation.decide()} == {Verdict.SKIPPED}
    assert compensation.is_done


def test_a_plan_shows_them_apart() -> None:
    view = plan_view(plan_of(THREE))
    assert (view.tasks, view.waves, view.on_failure) == (2, [["a", "b"]], ["a_1", "a_2", "b_1", "all"])
    assert critical_path(plan_of(THREE)) == ["a"]


def test_they_need_their_resources_one_by_one_and_when_all_others_have_ended() -> None:
    raw = flow(
        {"name": "a", "resources": {"gpu": 1}, "on_failure": [{"name": "u", "resources": {"gpu": 3, "tape": 1}}]},
        {"name": "b", "resources": {"gpu": 1}, "on_failure": [{"name": "v", "resources": {"gpu": 3}}]},
    )
    assert pool_demands(plan_of(raw)) == {"gpu": 3, "tape": 1}


async def test_a_run_cancelled_in_the_queue_leaves_none_pending(
    settings: FlowSettings, gate: Gate, end_of: EndOf
) -> None:
    hold = {"name": "hold", "type": "t", "required_tools": ["gate"]}
    async with FlowService(settings.model_copy(update={"max_concurrent_flows": 1}), agents=[gate]) as flows:
        first = await flows.execute_flow(workflow_def=flow(hold))
        queued = await flows.execute_flow(workflow_def=THREE)
        await flows.control(queued.run_id, "cancel")
        rows = await flows._store.rows("SELECT task, state FROM tasks WHERE run_id = ?", (queued.run_id,))
        gate.opened.set()
        await end_of(flows, first.run_id)
        assert (await flows.verify()).ok
    assert {row[0]: row[1] for row in rows} == dict.fromkeys(("a", "b", "a_1", "a_2", "b_1", "all"), "cancelled")


async def test_a_flow_that_another_runs_on_failure_is_kept(settings: FlowSettings) -> None:
    def unlist(tx: Transaction) -> list[str]:
        tx.execute("UPDATE flows SET listed = 0 WHERE flow_id != 'keeper'")
        return prune_flows(tx, at=0.0, saved_before=9e9, up_to=0)

    again = {"name": "again", "type": "flow", "parameters": {"flow_id": "used"}}
    async with FlowService(settings) as flows:
        for flow_id in ("used", "free"):
            await flows.create_flow(workflow_def=flow({"name": flow_id}), flow_id=flow_id)
        await flows.create_flow(workflow_def=flow({"name": "a"}, on_failure=[again]), flow_id="keeper")
        assert await flows._store.write(unlist) == ["free"]
