"""A plan in brief."""

from __future__ import annotations

import json
from typing import Any

from contexten.extensions.flow.definition import Plan, WorkflowDefinition, compile_plan
from contexten.extensions.flow.flows.planview import (
    MAX_WAVES,
    critical_path,
    graph_view,
    plan_view,
    predecessors,
    side_effects,
)


def plan_of(*stages: dict[str, Any]) -> Plan:
    return compile_plan(WorkflowDefinition.model_validate_json(json.dumps({"stages": stages})))


def stage(name: str, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "tasks": list(tasks), **fields}


def test_waves_are_what_may_start_together() -> None:
    plan = plan_of(
        stage("load", {"name": "a"}, {"name": "b"}, execution_mode="parallel"),
        stage("join", {"name": "c"}, {"name": "d"}),
        stage("free", {"name": "e", "depends_on": ["a"]}, depends_on=[]),
    )
    assert plan_view(plan).waves == [["a", "b"], ["c", "e"], ["d"]]


def test_a_stage_waits_for_what_its_condition_names() -> None:
    plan = plan_of(stage("s", {"name": "a"}), stage("t", {"name": "b"}, depends_on=[], when="tasks.a.output.ok"))
    assert predecessors(plan)["b"] == {"a"}


def test_an_empty_stage_hands_on_what_came_before_it() -> None:
    plan = plan_of(stage("s", {"name": "a"}), stage("empty"), stage("t", {"name": "b"}))
    assert predecessors(plan)["b"] == {"a"}


def test_the_critical_path_is_the_chain_with_the_most_complexity() -> None:
    plan = plan_of(
        stage("load", {"name": "quick"}, {"name": "slow", "complexity": 9}, execution_mode="parallel"),
        stage("use", {"name": "report", "complexity": 2}),
    )
    assert critical_path(plan) == ["slow", "report"]


def test_a_long_chain_shows_its_first_waves_only() -> None:
    plan = plan_of(stage("s", *({"name": f"t{number}"} for number in range(MAX_WAVES + 9))))
    view = plan_view(plan)
    assert (len(view.waves), view.tasks) == (MAX_WAVES, MAX_WAVES + 9)
    assert len(critical_path(plan)) == MAX_WAVES + 9


def test_side_effects_are_told_as_they_are_written() -> None:
    plan = plan_of(
        stage(
            "s",
            {"name": "get", "required_tools": ["http_client"], "parameters": {"url": "https://x/{{ inputs.id }}"}},
            {"name": "put", "required_tools": ["http_client"], "parameters": {"url": "https://x", "method": "PUT"}},
            {"name": "run", "required_tools": ["shell"], "parameters": {"argv": ["ls", "-l"]}},
            {"name": "pure", "required_tools": ["json_parser", "data_processor"], "parameters": {"query": "@"}},
            {"name": "own", "required_tools": ["fax_machine"]},
            {"name": "sub", "type": "flow", "parameters": {"flow_id": "other"}},
        )
    )
    assert side_effects(plan) == [
        "get: sends GET https://x/{{ inputs.id }}",
        "put: sends PUT https://x",
        "run: runs the command ls -l",
        "own: uses the tool fax_machine",
        "sub: runs the flow other",
    ]


def depends_on(plan: Plan) -> dict[str, list[str]]:
    return {part.task: part.depends_on for part in graph_view(plan)}


def test_the_graph_tells_dependencies_templates_and_the_order_of_stages() -> None:
    plan = plan_of(
        stage("load", {"name": "a"}, {"name": "b"}, execution_mode="parallel"),
        stage("use", {"name": "c", "parameters": {"data": "{{ tasks.a.output }}"}}, {"name": "d"}),
        stage("free", {"name": "e", "depends_on": ["stage:load"]}, depends_on=[], when="tasks.b.output.ok"),
    )
    assert depends_on(plan) == {"a": [], "b": [], "c": ["stage:load", "a"], "d": ["c"], "e": ["b", "a"]}


def test_in_the_graph_a_task_that_follows_one_of_its_own_stage_does_not_name_the_stage_before() -> None:
    plan = plan_of(
        stage("first", {"name": "a"}),
        stage("empty"),
        stage("wide", {"name": "b"}, {"name": "c", "depends_on": ["b"]}, execution_mode="parallel"),
    )
    assert depends_on(plan) == {"a": [], "b": ["stage:first"], "c": ["b"]}


def test_the_graph_of_wide_stages_grows_with_their_tasks_not_with_the_pairs_of_them() -> None:
    wide = [[{"name": f"{part}{number}"} for number in range(500)] for part in "ab"]
    plan = plan_of(*(stage(f"s{index}", *tasks, execution_mode="parallel") for index, tasks in enumerate(wide)))
    assert sum(map(len, depends_on(plan).values())) == 500


def test_compensations_follow_the_task_that_failed_and_each_other() -> None:
    undo = [{"name": "undo"}, {"name": "tell"}]
    plan = plan_of(stage("s", {"name": "a", "on_failure": undo}))
    assert depends_on(plan) == {"a": [], "undo": ["a"], "tell": ["undo"]}
