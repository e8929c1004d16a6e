"""cache: what the checker says of the key under which an output serves others."""

from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.definition import Catalog, apply_patch, check

GET = {"required_tools": ["http_client"], "parameters": {"url": "https://example.com/{{ inputs.id }}"}}


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "main", "execution_mode": "parallel", "tasks": list(tasks)}]}


def test_a_task_that_the_key_names_is_a_dependency(catalog: Catalog) -> None:
    raw = flow({"name": "b", **GET, "cache": {"key": "{{ tasks.a.output }}", "ttl_s": 60}}, {"name": "a"})
    plan = check(raw, catalog).plan
    assert plan is not None
    assert plan.order == ("a", "b")


@pytest.mark.parametrize(
    ("task", "codes", "path"),
    [
        ({**GET, "cache": {}}, ["missing_field", "missing_field"], "/cache"),
        ({**GET, "cache": {"key": ["x"], "ttl_s": 0}}, ["wrong_type", "invalid_value"], "/cache/key"),
        ({**GET, "cache": {"key": "{{ secrets.API_TOKEN }}", "ttl_s": 1}}, ["invalid_expression"], "/cache/key"),
        ({**GET, "cache": {"key": "{{ item }}", "ttl_s": 1}}, ["invalid_expression"], "/cache/key"),
        ({**GET, "cache": {"key": "{{ tasks.t.output }}", "ttl_s": 1}}, ["cycle"], "/cache/key"),
        ({**GET, "cache": {"key": "{{ tasks.u.output }}", "ttl_s": 1}}, ["unknown_task"], "/cache/key"),
        ({**GET, "cache": {"key": "{{ inputs. }}", "ttl_s": 1}}, ["invalid_expression"], "/cache/key"),
    ],
)
def test_a_bad_key_is_refused_at_its_place(task: Any, codes: list[str], path: str, catalog: Catalog) -> None:
    issues = check(flow({"name": "t", **task}), catalog).issues
    assert [issue.code for issue in issues] == codes
    assert issues[0].path == f"/stages/0/tasks/0{path}"


@pytest.mark.parametrize(
    ("task", "code"),
    [({**GET, "cache": {"key": "{{ inputs.id }}", "ttl": 1}}, "unknown_field")],
)
def test_a_plain_mistake_comes_with_its_mend(task: Any, code: str, catalog: Catalog) -> None:
    raw = flow({"name": "t", **task})
    (issue,) = check(raw, catalog).issues
    assert issue.code == code
    assert issue.patch is not None
    assert check(apply_patch(raw, issue.patch), catalog).issues == ()


@pytest.mark.parametrize(
    ("task", "is_warned"),
    [
        ({**GET, "cache": {"key": "daily", "ttl_s": 1}}, True),
        ({**GET, "cache": {"key": "{{ inputs.id }}", "ttl_s": 1}}, False),
        ({**GET, "for_each": [1, 2], "cache": {"key": "{{ inputs.id }}", "ttl_s": 1}}, True),
        ({**GET, "for_each": [1, 2], "cache": {"key": "{{ item }}", "ttl_s": 1}}, False),
        (
            {"required_tools": ["http_client"], "parameters": {"url": "https://x"}, "cache": {"key": "x", "ttl_s": 1}},
            False,
        ),
    ],
)
def test_a_key_that_unlike_tasks_would_share_is_warned_of(task: Any, is_warned: bool, catalog: Catalog) -> None:
    report = check(flow({"name": "t", **task}), catalog)
    assert report.issues == ()
    assert ("shared_cache_key" in [warning.code for warning in report.warnings]) is is_warned
