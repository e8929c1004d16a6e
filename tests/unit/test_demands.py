"""What runs hold: worked out once for a plan and a set of agents, and bounded by what may run at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contexten.extensions.flow.agents.registry import AgentRegistry
from contexten.extensions.flow.agents.staff import Staff
from contexten.extensions.flow.definition import Plan, WorkflowDefinition, compile_plan
from contexten.extensions.flow.scheduling.demands import Demands, pool_demands


def plan_of(*stages: dict[str, Any], **fields: Any) -> Plan:
    return compile_plan(WorkflowDefinition.model_validate_json(json.dumps({"stages": list(stages), **fields})))


def stage(name: str, *tasks: dict[str, Any], mode: str = "parallel", **fields: Any) -> dict[str, Any]:
    return {"name": name, "execution_mode": mode, "tasks": list(tasks), **fields}


def task(name: str, gpu: float = 1, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": ["turn"], "resources": {"gpu": gpu}, **fields}


class Turner:
    name = "turner"
    agent_type = "t"
    tools = ("turn",)
    capacity = 1

    async def run(self, task: object) -> None: ...


@pytest.mark.parametrize(
    ("stages", "most"),
    [
        ([stage("s", task("a"), task("b", 2), task("c"))], 4),
        ([stage("s", task("a"), task("b", 2), task("c"), mode="sequential")], 2),
        ([stage("s", task("a"), task("b")), stage("t", task("c", 1.5), depends_on=["s"])], 2),
        ([stage("s", task("a", 3), task("b", depends_on=["a"]), task("c", depends_on=["b"]))], 3),
        ([stage("s", task("a"), task("b", 2, depends_on=["a"]), task("c"))], 4),  # a bound: c may meet either
    ],
)
def test_what_may_run_at_once_is_added_up_and_what_follows_is_not(stages: list[dict[str, Any]], most: float) -> None:
    assert pool_demands(plan_of(*stages)) == {"gpu": most}


def test_tasks_of_on_failure_run_alone() -> None:
    assert pool_demands(plan_of(stage("s", task("a"), task("b")), on_failure=[task("c"), task("d", 1.5)])) == {"gpu": 2}
    assert pool_demands(plan_of(stage("s", task("a")), on_failure=[task("c", 2)])) == {"gpu": 2}


def test_what_a_plan_needs_is_kept_until_there_are_other_agents() -> None:
    demands, registry, plan = Demands(), AgentRegistry(), plan_of(stage("s", task("a"), task("b")))
    staff = Staff(registry)
    pools, agents = demands.of(plan, staff)
    assert (dict(pools), dict(agents)) == ({"gpu": 2}, {})
    assert demands.of(plan, staff)[0] is pools
    registry.add(Turner())
    assert dict(demands.of(plan, staff)[1]) == {"agent:turner": 2}
