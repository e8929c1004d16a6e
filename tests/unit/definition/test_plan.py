from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.definition import Catalog, Plan, Scope, WorkflowDefinition, check, compile_plan
from contexten.extensions.flow.errors import InvalidDefinition

RAW: dict[str, Any] = {
    "stages": [
        {
            "name": "one",
            "execution_mode": "parallel",
            "max_parallel": 2,
            "tasks": [
                {"name": "a", "parameters": {"x": 1}},
                {"name": "b", "for_each": "tasks.a.output", "parameters": {"y": "{{ item }} {{ secrets.API_TOKEN }}"}},
            ],
        },
        {"name": "two", "when": "tasks.a.output != null", "tasks": [{"name": "c", "depends_on": ["stage:one"]}]},
        {
            "name": "three",
            "depends_on": ["one"],
            "tasks": [{"name": "d", "when": "tasks.b.state == 'failed' || tasks.a.output"}, {"name": "e"}],
        },
    ],
    "output": {"sum": "{{ tasks.c.output }}"},
}


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    report = check(RAW, catalog)
    report.raise_if_invalid()
    assert report.plan is not None
    return report.plan


def test_stages_know_what_comes_before_them(plan: Plan) -> None:
    assert [stage.depends_on for stage in plan.stages] == [(), ("one",), ("one",)]
    assert [stage.mode for stage in plan.stages] == ["parallel", "sequential", "sequential"]
    assert plan.stages[0].max_parallel == 2
    assert plan.stages[0].tasks == ("a", "b")
    assert plan.stages[1].requires == {"a"}


def test_tasks_require_what_they_and_their_templates_name(plan: Plan) -> None:
    assert {name: node.requires for name, node in plan.tasks.items()} == {
        "a": frozenset(),
        "b": {"a"},
        "c": {"a", "b"},
        "d": {"a", "b"},
        "e": frozenset(),
    }
    assert plan.tasks["d"].tolerates == {"a", "b"}
    assert plan.tasks["c"].tolerates == frozenset()


def test_tasks_stand_in_the_order_of_the_definition_and_the_order_follows_dependencies(plan: Plan) -> None:
    assert list(plan.tasks) == ["a", "b", "c", "d", "e"]
    assert [node.index for node in plan.tasks.values()] == [0, 1, 2, 3, 4]
    assert plan.tasks["e"].path == "/stages/2/tasks/1"
    places = {name: place for place, name in enumerate(plan.order)}
    assert places["a"] < places["b"] < places["c"]
    assert places["d"] < places["e"]


def test_secrets_are_known_by_task_and_of_all(plan: Plan) -> None:
    assert plan.tasks["b"].secrets == {"API_TOKEN"}
    assert plan.secrets == {"API_TOKEN"}


def test_compiled_parts_render(plan: Plan) -> None:
    tasks = {name: {"output": [5], "state": "completed", "error": None} for name in "abcde"}
    scope = Scope(task=tasks.__getitem__, secret=lambda name: "s")
    node = plan.tasks["b"]
    assert node.for_each is not None
    assert node.for_each.render(scope) == [5]
    assert node.parameters.render(scope.with_values(item=5, index=0)) == {"y": "5 s"}
    assert plan.output is not None
    assert plan.output.render(scope) == {"sum": [5]}
    assert plan.tasks["a"].parameters.is_constant
    assert plan.stages[1].when is not None
    assert plan.stages[1].when.test(scope) is True


def test_a_stored_definition_compiles_to_the_same_plan(plan: Plan) -> None:
    again = compile_plan(WorkflowDefinition.model_validate_json(plan.definition.model_dump_json(exclude_unset=True)))
    assert again.order == plan.order
    assert {name: node.requires for name, node in again.tasks.items()} == {
        name: node.requires for name, node in plan.tasks.items()
    }


def test_a_definition_that_does_not_compile_any_more_is_refused() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        compile_plan(
            WorkflowDefinition.model_validate({"stages": [{"name": "s", "tasks": [{"name": "a", "when": "1 +"}]}]})
        )
    assert caught.value.issues[0].path == "/stages/0/tasks/0/when"
    for depends_on in (["b"], ["a"], ["stage:s"]):
        ring = [{"name": "a", "depends_on": depends_on}, {"name": "b"}]
        with pytest.raises(InvalidDefinition, match="cycle"):
            compile_plan(WorkflowDefinition.model_validate({"stages": [{"name": "s", "tasks": ring}]}))
