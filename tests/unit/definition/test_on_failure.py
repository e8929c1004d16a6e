"""on_failure: what the checker says of tasks that run after a failure."""

from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.definition import Catalog, CheckReport, Limits, WorkflowDefinition, apply_patch, check
from contexten.extensions.flow.errors import Issue

FETCH = {"required_tools": ["http_client"], "parameters": {"url": "https://example.com"}}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "main", "execution_mode": "parallel", "tasks": list(tasks)}], **fields}


def only(report: CheckReport) -> Issue:
    assert len(report.issues) == 1, report.issues
    return report.issues[0]


def test_a_plan_holds_them_apart_from_the_order(catalog: Catalog) -> None:
    raw = flow(
        {"name": "a", "on_failure": [{"name": "a_1"}, {"name": "a_2", "parameters": {"x": "{{ secrets.API_TOKEN }}"}}]},
        {"name": "b"},
        on_failure=[{"name": "all"}],
    )
    report = check(raw, catalog)
    assert report.definition is not None
    assert report.definition.as_dict() == raw
    plan = report.plan
    assert plan is not None
    assert list(plan.tasks) == ["a", "b", "a_1", "a_2", "all"]
    assert plan.order == ("a", "b")
    assert dict(plan.on_failure) == {"a": ("a_1", "a_2"), "": ("all",)}
    assert [plan.tasks[name].on_failure_of for name in plan.tasks] == [None, None, "a", "a", ""]
    assert plan.tasks["a_2"].path == "/stages/0/tasks/0/on_failure/1"
    assert plan.secrets == {"API_TOKEN"}


@pytest.mark.parametrize(
    ("raw", "code", "path"),
    [
        (flow({"name": "a", "on_failure": [{"name": "a"}]}), "duplicate_name", "/stages/0/tasks/0/on_failure/0/name"),
        (flow({"name": "a"}, on_failure=[{"name": "b-c"}]), "invalid_name", "/on_failure/0/name"),
        (flow({"name": "a"}, on_failure=[{"nam": "b"}]), "unknown_field", "/on_failure/0/nam"),
        (flow({"name": "a"}, on_failure={"name": "b"}), "wrong_type", "/on_failure"),
        (flow({"name": "a"}, on_error=[{"name": "b"}]), "unknown_field", "/on_error"),
        (
            flow({"name": "a", "on_failure": [{"name": "b", "retry": {"max_tries": 2}}]}),
            "unknown_field",
            "/stages/0/tasks/0/on_failure/0/retry/max_tries",
        ),
        (
            flow({"name": "a"}, on_failure=[{"name": "b", "on_failure": [{"name": "c"}]}]),
            "unknown_field",
            "/on_failure/0/on_failure",
        ),
        (
            flow({"name": "a"}, on_failure=[{"name": "b", "depends_on": ["a"]}]),
            "unused_field",
            "/on_failure/0/depends_on",
        ),
        (
            flow({"name": "a", "depends_on": ["b"]}, on_failure=[{"name": "b"}]),
            "cycle",
            "/stages/0/tasks/0/depends_on/0",
        ),
        (
            flow({"name": "a"}, on_failure=[{"name": "b", "required_tools": ["http_clint"], "parameters": {}}]),
            "unknown_tool",
            "/on_failure/0/required_tools/0",
        ),
        (
            flow({"name": "fetch"}, on_failure=[{"name": "b", "when": "tasks.fetsh.state == 'failed'"}]),
            "unknown_task",
            "/on_failure/0/when",
        ),
        (
            flow({"name": "a"}, on_failure=[{"name": "b", "parameters": {"x": "{{ failure.messages }}"}}]),
            "invalid_expression",
            "/on_failure/0/parameters/x",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_mend(raw: Any, code: str, path: str, catalog: Catalog) -> None:
    report = check(raw, catalog)
    issue = next(issue for issue in report.issues if issue.code == code)
    assert issue.path == path
    if code == "unknown_tool":
        return  # the tool's parameters are missing as well
    assert only(report) == issue
    if issue.patch is None:  # what is meant is a guess, or lost by a removal
        assert code in ("unused_field", "cycle") or path.endswith("/on_failure")
        return
    assert check(apply_patch(raw, issue.patch), catalog).issues == ()


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (flow({"name": "a", "parameters": {"x": "{{ tasks.u.output }}"}}, on_failure=[{"name": "u"}]), "parameters/x"),
        (flow({"name": "a"}, on_failure=[{"name": "u"}], output="{{ tasks.u.output }}"), "/output"),
        (flow({"name": "a"}, on_failure=[{"name": "u", "when": "tasks.v.output.ok"}, {"name": "v"}]), "/0/when"),
        (
            flow({"name": "a", "on_failure": [{"name": "u", "when": "tasks.v.output.ok"}]}, on_failure=[{"name": "v"}]),
            "/on_failure/0/when",
        ),
        (
            flow(
                {"name": "a", "on_failure": [{"name": "u", "when": "tasks.v.output.ok"}]},
                {"name": "b", "on_failure": [{"name": "v"}]},
            ),
            "/on_failure/0/when",
        ),
    ],
)
def test_nothing_names_an_on_failure_task_that_may_run_later(raw: Any, path: str, catalog: Catalog) -> None:
    issue = only(check(raw, catalog))
    assert issue.code == "cycle"
    assert issue.path.endswith(path)


def test_one_may_name_those_that_run_before_it(catalog: Catalog) -> None:
    raw = flow(
        {"name": "a", "on_failure": [{"name": "u"}, {"name": "v", "when": "tasks.u.state == 'completed'"}]},
        on_failure=[{"name": "w", "parameters": {"x": "{{ tasks.v.output }}", "y": "{{ failure.task }}"}}],
    )
    assert check(raw, catalog).issues == ()


@pytest.mark.parametrize("place", ["task", "stage", "output"])
def test_failure_is_in_scope_in_on_failure_tasks_only(place: str, catalog: Catalog) -> None:
    raw = flow({"name": "a"}, on_failure=[{"name": "b"}])
    if place == "task":
        raw["stages"][0]["tasks"][0]["when"] = "failure.kind == 'timeout'"
    elif place == "stage":
        raw["stages"][0]["when"] = "failure.kind == 'timeout'"
    else:
        raw["output"] = "{{ failure.message }}"
    issue = only(check(raw, catalog))
    assert (issue.code, issue.message) == ("invalid_expression", "failure is in scope only in on_failure tasks")


def test_a_sub_flow_that_leads_back_is_refused_there_too() -> None:
    back = flow({"name": "x"}, on_failure=[{"name": "y", "type": "flow", "parameters": {"flow_id": "mine"}}])
    catalog = Catalog(flows={"other": WorkflowDefinition.model_validate(back, strict=False)}.get)
    raw = flow({"name": "a"}, on_failure=[{"name": "b", "type": "flow", "parameters": {"flow_id": "other"}}])
    issue = next(issue for issue in check(raw, catalog, flow_id="mine").issues if issue.code == "recursion")
    assert issue.got == "mine -> other -> mine"


def test_they_count_among_the_tasks_of_a_definition(catalog: Catalog) -> None:
    raw = flow({"name": "a", "on_failure": [{"name": f"b{n}"} for n in range(4)]}, on_failure=[{"name": "c"}])
    assert only(check(raw, catalog, Limits(max_tasks=5))).got == 6


def test_renaming_a_task_reaches_its_compensation(catalog: Catalog) -> None:
    raw = flow(
        {"name": "my task", "on_failure": [{"name": "u", "when": "tasks['my task'].state == 'failed'"}]},
        on_failure=[{"name": "v", "parameters": {"x": "{{ tasks['my task'].error }}"}}],
    )
    issue = only(check(raw, catalog))
    assert issue.patch is not None
    mended = apply_patch(raw, issue.patch)
    assert check(mended, catalog).issues == ()
    assert mended["on_failure"][0]["parameters"]["x"] == "{{ tasks.my_task.error }}"
