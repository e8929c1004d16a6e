"""Patches keep the meaning of a definition, or there are none; those of one answer apply one after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from contexten.extensions.flow.definition import AgentSpec, Catalog, ToolSpec, apply_patch, check
from contexten.extensions.flow.errors import Issue


class Shell(BaseModel):
    model_config = ConfigDict(extra="forbid")

    argv: list[str]
    env: dict[str, str] = {}


CATALOG = Catalog(
    tools={"shell": ToolSpec(name="shell", parameters=Shell)},
    agents=(AgentSpec(name="builtin", agent_type="tool", tools=("shell",), builtin=True),),
)


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "main", "execution_mode": "parallel", "tasks": list(tasks)}], **fields}


def shell(**parameters: Any) -> dict[str, Any]:
    return {"name": "a", "required_tools": ["shell"], "parameters": parameters}


def issues_of(raw: dict[str, Any]) -> dict[str, Issue]:
    return {issue.path: issue for issue in check(raw, CATALOG).issues}


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (flow({"name": "a"}, {"name": "b", "depends_on": ["nobody"]}), "/stages/0/tasks/1/depends_on/0"),
        (flow({"name": "a", "depends_on": ["stage:zzz"]}), "/stages/0/tasks/0/depends_on/0"),
        (flow({"name": "a", "depends_on": ["a"]}), "/stages/0/tasks/0/depends_on/0"),
        (flow({"name": "a", "qqqq": 1}), "/stages/0/tasks/0/qqqq"),
        (flow({"name": "a", "max_parallel": 2}), "/stages/0/tasks/0/max_parallel"),
        (flow(shell(argv=["x"], command="echo")), "/stages/0/tasks/0/parameters/command"),
        (
            flow({"name": "w", "type": "wait", "parameters": {"seconds": 1, "until": "2030-01-01T00:00:00Z"}}),
            "/stages/0/tasks/0/parameters",
        ),
        (
            flow({"name": "w", "type": "wait", "parameters": {"until": "2030-01-01T00:00:00"}}),
            "/stages/0/tasks/0/parameters/until",
        ),
    ],
)
def test_nothing_that_says_something_is_taken_away(raw: dict[str, Any], path: str) -> None:
    assert issues_of(raw)[path].patch is None


def test_an_unknown_field_that_is_empty_is_taken_away() -> None:
    raw = flow({"name": "a", "qqqq": None})
    (issue,) = check(raw, CATALOG).issues
    assert apply_patch(raw, issue.patch) == flow({"name": "a"})


def test_a_parameter_is_not_renamed_while_another_one_is_unexplained() -> None:
    issues = issues_of(flow(shell(command="echo", args=["sh", "-c", "x"])))
    renamed = issues["/stages/0/tasks/0/parameters/args"]
    assert (renamed.suggestion, renamed.patch) == ("argv", None)
    assert issues["/stages/0/tasks/0/parameters/command"].patch is None


def test_a_parameter_with_one_plain_name_is_renamed() -> None:
    raw = flow(shell(args=["sh"]))
    issue = issues_of(raw)["/stages/0/tasks/0/parameters/args"]
    assert apply_patch(raw, issue.patch) == flow(shell(argv=["sh"]))


def test_a_name_that_is_as_near_to_two_others_is_no_plain_one() -> None:
    (issue,) = check(flow({"name": "get_a"}, {"name": "get_b"}, {"name": "z", "depends_on": ["get_c"]}), CATALOG).issues
    assert (issue.suggestion, issue.patch) == (None, None)
    assert "get_a, get_b" in issue.message


def test_the_patches_of_nested_misspellings_apply_in_the_order_of_the_issues() -> None:
    raw = flow({"name": "a", "required_tools": ["shell"], "paramters": {"args": ["x"]}, "rety": {"max_attemps": 2}})
    whole: list[dict[str, Any]] = []
    for issue in check(raw, CATALOG).issues:
        whole += issue.patch or []
    mended = apply_patch(raw, whole)
    assert mended == flow({**shell(argv=["x"]), "retry": {"max_attempts": 2}})
    assert check(mended, CATALOG).issues == ()


def test_a_patch_that_would_write_over_another_one_is_left_to_the_next_check() -> None:
    raw = flow(
        {"name": "fetch"}, {"name": "b", "parameters": {"x": "{{ tasks.fetsh.output }} {{ tasks.fetc.output }}"}}
    )
    patches = [issue.patch for issue in check(raw, CATALOG).issues if issue.patch]
    assert len(patches) == 1


def test_words_outside_the_braces_stay_as_they_are() -> None:
    raw = flow({"name": "fetch"}, {"name": "b", "parameters": {"x": "fetch says {{ fetch.output }}"}})
    (issue,) = check(raw, CATALOG).issues
    mended = apply_patch(raw, issue.patch)
    assert mended["stages"][0]["tasks"][1]["parameters"]["x"] == "fetch says {{ tasks.fetch.output }}"


def test_a_misspelt_root_is_told_with_the_right_one() -> None:
    raw = flow({"name": "a", "when": "inptus.x > 3"})
    (issue,) = check(raw, CATALOG).issues
    assert issue.suggestion == "inputs"
    assert apply_patch(raw, issue.patch) == flow({"name": "a", "when": "inputs.x > 3"})


@pytest.mark.parametrize(
    ("on", "near"),
    [("netwrok", "network"), ("timeuot", "timeout"), ("quota_used_op", "quota_used_up"), ("bogus", None)],
)
def test_a_kind_of_error_that_nothing_known_has_is_warned_of(on: str, near: str | None) -> None:
    catalog = replace(CATALOG, kinds=frozenset({"quota_used_up"}))
    report = check(flow({"name": "a", "required_tools": [], "retry": {"on": [on]}}), catalog)
    assert report.issues == ()
    (found,) = (warning for warning in report.warnings if warning.code == "unusual_kind")
    assert (found.path, found.suggestion) == ("/stages/0/tasks/0/retry/on/0", near)
    assert (f"did you mean {near!r}" if near else "there are agent_failure, ") in found.message


@pytest.mark.parametrize("on", ["network", "vetoed", "value_error", "flow_not_found", "quota_used_up"])
def test_a_kind_that_an_error_known_here_has_is_not_warned_of(on: str) -> None:
    catalog = replace(CATALOG, kinds=frozenset({"quota_used_up"}))
    report = check(flow({"name": "a", "required_tools": [], "retry": {"on": [on]}}), catalog)
    assert "unusual_kind" not in {warning.code for warning in report.warnings}


@pytest.mark.parametrize("place", ["when", "for_each", "cache", "output"])
def test_a_secret_outside_of_parameters_is_refused_for_its_place(place: str) -> None:
    expression = "secrets.API_TOKEN == ''"
    raw = flow({"name": "a"})
    if place == "output":
        raw["output"] = f"{{{{ {expression} }}}}"
    elif place == "cache":
        raw["stages"][0]["tasks"][0]["cache"] = {"key": f"{{{{ {expression} }}}}", "ttl_s": 1}
    else:
        raw["stages"][0]["tasks"][0][place] = expression
    (issue,) = check(raw, CATALOG).issues
    assert issue.message == "secrets can be used in parameters only: what stands here is recorded"


def test_an_unknown_name_in_a_condition_is_told_with_the_names_for_conditions() -> None:
    (issue,) = check(flow({"name": "a", "when": "nothing_like_it > 3"}), CATALOG).issues
    assert "there are inputs, context, tasks, run" in issue.message
    assert "secrets" not in issue.message
    (parameter,) = check(flow({"name": "a", "parameters": {"x": "{{ nothing_like_it }}"}}), CATALOG).issues
    assert "secrets" in parameter.message


@pytest.mark.parametrize(
    ("field", "value", "is_refused"),
    [
        ("when", "'abc'", True),
        ("when", "{{ 5 }}", True),
        ("when", "1 < 2", False),
        ("when", "inputs.x", False),
        ("for_each", "{{ 5 }}", True),
        ("for_each", "'abc'", True),
        ("for_each", "[1, 2]", False),
        ("for_each", "inputs.x", False),
    ],
)
def test_a_constant_of_the_wrong_type_is_refused(field: str, value: str, is_refused: bool) -> None:
    issues = check(flow({"name": "a", field: value}), CATALOG).issues
    assert [issue.path for issue in issues] == ([f"/stages/0/tasks/0/{field}"] if is_refused else [])


def test_a_missing_parameter_of_a_task_without_parameters_is_told_at_the_task() -> None:
    (issue,) = check(flow({"name": "a", "required_tools": ["shell"]}), CATALOG).issues
    assert (issue.code, issue.path) == ("missing_parameter", "/stages/0/tasks/0")


def test_tasks_without_tools_are_warned_of_once_and_named() -> None:
    raw = flow({"name": "a"}, {"name": "b", "on_failure": [{"name": "undo"}]})
    (warning,) = check(raw, CATALOG).warnings
    assert warning.code == "no_tools"
    assert "a, b, undo" in warning.message
