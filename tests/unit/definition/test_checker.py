from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from contexten.extensions.flow.definition import (
    Catalog,
    CheckReport,
    Limits,
    WorkflowDefinition,
    apply_patch,
    check,
)
from contexten.extensions.flow.errors import InvalidDefinition, Issue

SEED: dict[str, Any] = {
    "id": "data-pipeline",
    "name": "Data pipeline",
    "description": "Collects and shapes",
    "stages": [
        {
            "name": "collect",
            "execution_mode": "parallel",
            "continue_on_task_failure": False,
            "tasks": [
                {
                    "name": "fetch",
                    "type": "data_collection",
                    "required_tools": [],
                    "preferred_agent_type": "collector",
                    "complexity": 1,
                    "parameters": {},
                }
            ],
        },
        {"name": "shape", "execution_mode": "sequential", "tasks": [{"name": "shape_rows", "type": "data_processing"}]},
    ],
    "continue_on_failure": False,
    "monitoring_required": True,
    "complex_orchestration": False,
    "context": {"environment": "production", "timeout": 300},
}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "main", "execution_mode": "parallel", "tasks": list(tasks)}], **fields}


def only(report: CheckReport) -> Issue:
    assert len(report.issues) == 1, report.issues
    return report.issues[0]


def mended(raw: Any, issue: Issue, catalog: Catalog) -> Any:
    assert issue.patch is not None
    after = apply_patch(raw, issue.patch)
    assert check(after, catalog).issues == ()
    return after


def test_the_seeds_definition_is_accepted_as_it_stands(catalog: Catalog) -> None:
    given = copy.deepcopy(SEED)
    report = check(SEED, catalog)
    assert report.issues == ()
    assert report.definition is not None
    assert report.definition.as_dict() == SEED == given


def test_a_definition_may_be_given_as_text_or_as_a_model(catalog: Catalog) -> None:
    definition = check(json.dumps(SEED), catalog).definition
    assert definition is not None
    assert check(definition, catalog).definition == definition
    assert WorkflowDefinition.model_validate_json(json.dumps(SEED)) == definition


@pytest.mark.parametrize("wrong", ["x", None, 5, True, {}])
@pytest.mark.parametrize(
    ("place", "wrap"),
    [
        ("/stages", lambda wrong: {"stages": wrong}),
        ("/stages/0", lambda wrong: {"stages": [wrong]}),
        ("/stages/0/tasks", lambda wrong: {"stages": [{"name": "s", "tasks": wrong}]}),
        ("/stages/0/tasks/0", lambda wrong: {"stages": [{"name": "s", "tasks": [wrong]}]}),
        ("/tasks", lambda wrong: {"tasks": wrong}),
        ("/stages/0/tasks/0/retry", lambda wrong: flow({"name": "a", "retry": wrong})),
        ("/stages/0/tasks/0/parameters", lambda wrong: flow({"name": "a", "parameters": wrong})),
        ("/stages/0/tasks/0/name", lambda wrong: flow({"name": wrong})),
        ("/context", lambda wrong: flow({"name": "a"}, context=wrong)),
    ],
)
def test_a_value_of_the_wrong_type_is_one_issue_at_its_place(
    place: str, wrap: Callable[[Any], Any], wrong: Any, catalog: Catalog
) -> None:
    issues = check(wrap(wrong), catalog).issues
    assert len({issue.path for issue in issues}) == len(issues)
    if not isinstance(wrong, dict):
        assert [issue.path for issue in issues] in ([place], [])  # none where null says the default


def test_a_key_that_is_there_twice_is_refused_with_its_place_and_the_rest_is_checked_too(catalog: Catalog) -> None:
    text = '{"stages": [{"name": "s", "tasks": [{"name": "a", "name": "b", "x/y": 1, "x/y": 2}]}]}'
    issues = check(text, catalog).issues
    task = "/stages/0/tasks/0"
    assert [(issue.code, issue.path) for issue in issues] == [
        ("duplicate_key", f"{task}/name"),
        ("duplicate_key", f"{task}/x~1y"),
        ("unknown_field", f"{task}/x~1y"),
    ]
    assert "'name'" in issues[0].message


def test_a_task_without_tools_that_only_the_builtin_agent_can_serve_is_warned_of(catalog: Catalog) -> None:
    report = check(flow({"name": "a"}), catalog)
    assert [warning.code for warning in report.warnings] == ["no_tools"]


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        ('{"stages": [}', "malformed_json", "line 1, column 13"),
        ("[" * 100_000, "too_deep", "deeply"),
        ('{"stages": [], "stages": []}', "duplicate_key", "stages"),
        ("9" * 5000, "not_json", "digits"),
        ('{"a": NaN}', "not_json", "NaN"),
        (b"\xff", "malformed_json", "UTF-8"),
        (None, "wrong_type", "null"),
        ([], "wrong_type", "a list"),
        ({"name": "\ud800"}, "not_json", "surrogate"),
        ({"x": {1: 2}}, "not_json", "string"),
        (object(), "not_json", "object"),
        ({}, "missing_field", "stages"),
        ({"stages": []}, "no_tasks", "no task"),
    ],
)
def test_what_is_no_definition_is_refused(raw: Any, code: str, words: str, catalog: Catalog) -> None:
    issue = check(raw, catalog).issues[0]
    assert issue.code == code
    assert words in issue.message


def test_a_cyclic_object_is_refused(catalog: Catalog) -> None:
    raw = flow({"name": "a", "parameters": {}})
    raw["stages"][0]["tasks"][0]["parameters"]["again"] = raw
    assert only(check(raw, catalog)).code == "too_deep"


def test_limits_are_kept(catalog: Catalog) -> None:
    limits = Limits(max_tasks=2, max_definition_bytes=2000, max_for_each_items=3)
    assert only(check(flow(*({"name": f"t{n}"} for n in range(3))), catalog, limits)).code == "too_many_tasks"
    assert only(check(flow({"name": "a", "description": "x" * 2000}), catalog, limits)).code == "too_large"
    assert only(check(flow({"name": "a", "for_each": [1, 2, 3, 4]}), catalog, limits)).code == "too_many_items"


def test_every_problem_is_in_one_answer(catalog: Catalog) -> None:
    raw = flow(
        {"name": "a", "required_tools": ["http_clinet"], "paramters": {"ulr": "http://x", "timeout_s": "soon"}},
        {"name": "my-task", "depends_on": ["b"], "when": "tasks.a.outputs.x"},
        {"name": "w", "type": "wait", "parameters": {}},
        execution="fast",
    )
    report = check(raw, catalog)
    assert {issue.code for issue in report.issues} >= {
        "unknown_tool",
        "unknown_field",
        "unknown_parameter",
        "wrong_type",
        "invalid_name",
        "unknown_task",
        "invalid_expression",
        "invalid_parameters",
    }
    assert {issue.path for issue in report.issues} >= {
        "/execution",
        "/stages/0/tasks/0/paramters/ulr",
        "/stages/0/tasks/1/name",
        "/stages/0/tasks/1/when",
        "/stages/0/tasks/2/parameters",
    }


def test_the_summary_names_the_first_three(catalog: Catalog) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        check(flow({"nam": "a", "x": 1, "y": 2, "z": 3}), catalog).raise_if_invalid()
    assert caught.value.message.startswith("the definition has 4 problems: /stages/0/tasks/0/")
    assert "and 1 more" in caught.value.message
    assert len(caught.value.issues) == 4


def test_a_misspelt_field_is_renamed_by_its_patch(catalog: Catalog) -> None:
    raw = flow({"name": "a", "descripton": "d"})
    issue = only(check(raw, catalog))
    assert (issue.path, issue.suggestion) == ("/stages/0/tasks/0/descripton", "description")
    assert mended(raw, issue, catalog) == flow({"name": "a", "description": "d"})


def test_tasks_without_a_stage_are_put_into_one(catalog: Catalog) -> None:
    raw = {"tasks": [{"name": "a"}]}
    after = mended(raw, only(check(raw, catalog)), catalog)
    assert after == {"stages": [{"name": "main", "tasks": [{"name": "a"}]}]}


@pytest.mark.parametrize(
    ("field", "value", "better"),
    [
        ("complexity", "3", 3),
        ("continue_on_item_failure", "false", False),
        ("max_parallel", 2.0, 2),
        ("required_tools", "json_parser", ["json_parser"]),
        ("on_interrupt", "Retry", "retry"),
        ("retry", {"max_attempts": "5"}, {"max_attempts": 5}),
        ("description", 5, "5"),
    ],
)
def test_a_mechanical_mend_comes_as_a_patch(field: str, value: Any, better: Any, catalog: Catalog) -> None:
    raw = flow({"name": "a", "for_each": [1], field: value})
    after = mended(raw, only(check(raw, catalog)), catalog)
    assert after["stages"][0]["tasks"][0][field] == better


def test_a_mode_in_another_case_is_mended(catalog: Catalog) -> None:
    raw = flow({"name": "a"})
    raw["stages"][0]["execution_mode"] = "Parallel"
    issue = only(check(raw, catalog))
    assert issue.expected == ["sequential", "parallel"]
    assert mended(raw, issue, catalog) == flow({"name": "a"})


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ({"retry": {"jitter": 2}}, "/retry/jitter"),
        ({"timeout_s": 0}, "/timeout_s"),
        ({"complexity": -1}, "/complexity"),
        ({"parameters": [1]}, "/parameters"),
        ({"depends_on": [["b"]]}, "/depends_on/0"),
        ({"when": 5}, "/when"),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(task: dict[str, Any], path: str, catalog: Catalog) -> None:
    assert only(check(flow({"name": "a", **task}), catalog)).path == f"/stages/0/tasks/0{path}"


def test_a_bad_name_is_mended_everywhere_it_is_used(catalog: Catalog) -> None:
    raw = flow(
        {"name": "get-it"},
        {
            "name": "b",
            "depends_on": ["get-it"],
            "when": "tasks.get-it.state == 'completed' && tasks['get-it'].output != null",
            "parameters": {"x": ["{{ tasks.get-it.output }}, not get-it"]},
        },
        output="{{ tasks.get-it.output }}",
    )
    raw["stages"][0]["when"] = "true"
    after = mended(raw, only(check(raw, catalog)), catalog)
    task = after["stages"][0]["tasks"][1]
    assert task["depends_on"] == ["get_it"]
    assert task["when"] == "tasks.get_it.state == 'completed' && tasks.get_it.output != null"
    assert task["parameters"] == {"x": ["{{ tasks.get_it.output }}, not get-it"]}
    assert after["output"] == "{{ tasks.get_it.output }}"


def test_a_bad_stage_name_is_mended_everywhere_it_is_used(catalog: Catalog) -> None:
    raw = {
        "stages": [
            {"name": "stage 1", "tasks": [{"name": "a"}]},
            {"name": "s2", "depends_on": ["stage 1"], "tasks": [{"name": "b", "depends_on": ["stage:stage 1"]}]},
        ]
    }
    after = mended(raw, only(check(raw, catalog)), catalog)
    assert after["stages"][1]["depends_on"] == ["stage_1"]
    assert after["stages"][1]["tasks"][0]["depends_on"] == ["stage:stage_1"]


def test_a_repeated_name_is_made_unique(catalog: Catalog) -> None:
    raw = flow({"name": "a"}, {"name": "a"})
    issue = only(check(raw, catalog))
    assert issue.code == "duplicate_name"
    assert [task["name"] for task in mended(raw, issue, catalog)["stages"][0]["tasks"]] == ["a", "a_2"]


@pytest.mark.parametrize(
    ("task", "code", "suggestion"),
    [
        ({"depends_on": ["fetsh"]}, "unknown_task", "fetch"),
        ({"parameters": {"x": "{{ tasks.fetsh.output }}"}}, "unknown_task", "fetch"),
        ({"when": "tasks.fetsh.state == 'completed'"}, "unknown_task", "fetch"),
        ({"parameters": {"x": "{{ tasks.fetch.outputs.y }}"}}, "invalid_expression", "tasks.fetch.output"),
        ({"parameters": {"x": "{{ fetch.output.y }}"}}, "invalid_expression", "tasks.fetch"),
        ({"parameters": {"x": "{{ secrets.API_TOKN }}"}}, "unknown_secret", "API_TOKEN"),
        ({"required_tools": ["jsonparser"]}, "unknown_tool", "json_parser"),
    ],
)
def test_did_you_mean(task: dict[str, Any], code: str, suggestion: str | None, catalog: Catalog) -> None:
    raw = flow({"name": "fetch"}, {"name": "next", **task})
    issue = only(check(raw, catalog))
    assert (issue.code, issue.suggestion) == (code, suggestion)
    mended(raw, issue, catalog)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"parameters": {"x": "{{ item }}"}}, "for_each"),
        ({"for_each": "[1]", "when": "index > 0"}, "not in its when"),
        ({"when": "secrets.API_TOKEN"}, "parameters only"),
        ({"parameters": {"x": "{{ tasks.a.output }}"}}, "its own output"),
        ({"parameters": {"x": "{{ inputs.x-y + 1 }}"}}, 'inputs["a-b"]'),
        ({"parameters": {"x": "{{ lower('A') }}"}}, "function"),
    ],
)
def test_names_out_of_scope_are_refused(task: dict[str, Any], words: str, catalog: Catalog) -> None:
    assert words in only(check(flow({"name": "a", **task}), catalog)).message


def test_secrets_have_no_place_in_the_output(catalog: Catalog) -> None:
    issue = only(check(flow({"name": "a"}, output={"x": "{{ secrets.API_TOKEN }}"}), catalog))
    assert issue.path == "/output/x"


def test_inputs_that_a_closed_schema_does_not_have_are_refused_and_else_warned_of(catalog: Catalog) -> None:
    raw = flow({"name": "a", "parameters": {"x": "{{ inputs.citty }}"}}, inputs={"properties": {"city": {}}})
    report = check(raw, catalog)
    assert report.issues == ()
    assert "unknown_input" in [warning.code for warning in report.warnings]
    raw["inputs"]["additionalProperties"] = False
    mended(raw, only(check(raw, catalog)), catalog)


@pytest.mark.parametrize(
    ("stages", "cycle", "path"),
    [
        (
            [
                {
                    "name": "s",
                    "execution_mode": "parallel",
                    "tasks": [
                        {"name": "a", "depends_on": ["c"]},
                        {"name": "b", "depends_on": ["a"]},
                        {"name": "c", "parameters": {"x": "{{ tasks.b.output }}"}},
                    ],
                }
            ],
            "a -> c -> b -> a",
            "/stages/0/tasks/0/depends_on/0",
        ),
        (
            [{"name": "s", "tasks": [{"name": "a", "when": "tasks.b.output"}, {"name": "b"}]}],
            "a -> b -> a",
            "/stages/0/tasks/0/when",
        ),
        (
            [
                {"name": "s", "tasks": [{"name": "a", "depends_on": ["stage:t"]}]},
                {"name": "t", "tasks": [{"name": "b"}]},
            ],
            "a -> b -> a",
            "/stages/0/tasks/0/depends_on/0",
        ),
        (
            [
                {"name": "s", "depends_on": ["t"], "tasks": [{"name": "a"}]},
                {"name": "t", "depends_on": ["s"], "tasks": [{"name": "b"}]},
            ],
            "stage:s -> stage:t -> stage:s",
            "/stages/0/depends_on/0",
        ),
        (
            [{"name": "s", "when": "tasks.a.output", "tasks": [{"name": "a"}]}],
            "stage:s -> a -> stage:s",
            "/stages/0/when",
        ),
    ],
)
def test_a_cycle_is_printed_with_a_place_to_change(
    stages: list[dict[str, Any]], cycle: str, path: str, catalog: Catalog
) -> None:
    issue = only(check({"stages": stages}, catalog))
    assert issue.code == "cycle"
    members = str(issue.got).split(" -> ")
    assert members[0] == members[-1]
    ring, expected = members[:-1], cycle.split(" -> ")[:-1]
    assert any(ring[turn:] + ring[:turn] == expected for turn in range(len(ring)))
    assert issue.path == path


def test_a_task_may_depend_on_a_stage_that_is_later_in_the_text_but_not_in_order(catalog: Catalog) -> None:
    raw = {
        "stages": [
            {"name": "late", "depends_on": ["early"], "tasks": [{"name": "a", "depends_on": ["b"]}]},
            {"name": "early", "depends_on": [], "tasks": [{"name": "b"}]},
        ]
    }
    plan = check(raw, catalog).plan
    assert plan is not None
    assert plan.order == ("b", "a")


@pytest.mark.parametrize(
    "raw",
    [
        flow({"name": "a", "type": "approval"}),
        flow({"name": "a", "type": "signal"}),
    ],
)
def test_what_the_format_names_and_this_version_does_not_do_is_refused(raw: Any, catalog: Catalog) -> None:
    assert only(check(raw, catalog)).code == "not_available_yet"


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({}, ""),
        ({"seconds": 1, "until": "2030-01-01T00:00:00Z"}, ""),
        ({"seconds": -1}, "/seconds"),
        ({"seconds": "5"}, "/seconds"),
        ({"until": "tomorrow"}, "/until"),
        ({"until": "2030-01-01T00:00:00"}, "/until"),
        ({"seconds": 1, "untill": 2}, "/untill"),
    ],
)
def test_a_wait_takes_seconds_or_a_moment(parameters: Any, path: str, catalog: Catalog) -> None:
    issues = check(flow({"name": "a", "type": "wait", "parameters": parameters}), catalog).issues
    assert f"/stages/0/tasks/0/parameters{path}" in {issue.path for issue in issues}


@pytest.mark.parametrize(
    "parameters", [{"seconds": 5}, {"seconds": "{{ inputs.s }}"}, {"until": "2030-01-01T00:00:00+02:00"}]
)
def test_a_good_wait_is_accepted(parameters: Any, catalog: Catalog) -> None:
    assert check(flow({"name": "a", "type": "wait", "parameters": parameters}), catalog).issues == ()


def _filled(unit: Callable[[int], str], size: int = 1_000_000) -> list[str]:
    units: list[str] = []
    while size > 0:
        units.append(unit(len(units)))
        size -= len(units[-1]) + 4
    return units


@pytest.mark.parametrize(
    "unit",
    [
        lambda n: f"{{{{ {n} + 1 }}}}",
        lambda n: f"{{{{ [{n}].map(x, x + 1).filter(x, x > 2) }}}}",
        lambda n: f"{{{{ inputs.a{n} }}}}",
        lambda n: "{{ 1 }}",
        lambda n: f"{{{{ {'1 + ' * 500}{n} }}}}",
    ],
)
def test_more_code_than_can_be_compiled_in_time_is_refused(unit: Callable[[int], str], catalog: Catalog) -> None:
    issues = check(flow({"name": "a", "parameters": {"x": _filled(unit)}}), catalog).issues
    assert "too_large" in [issue.code for issue in issues]


def test_a_check_ends_with_the_issues_that_it_can_tell(catalog: Catalog) -> None:
    issues = check(flow({"name": "a", "depends_on": _filled(lambda n: f"tx{n}")}), catalog).issues
    assert len(issues) == 1001
    assert issues[-1].code == "too_many_issues"
