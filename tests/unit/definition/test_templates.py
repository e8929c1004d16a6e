from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.definition import (
    ExpressionError,
    Scope,
    TemplateProblem,
    compile_condition,
    compile_template,
    has_template,
)
from contexten.extensions.flow.definition.templates import TemplateProblems

SCOPE = Scope(
    inputs={"n": 3, "who": "Ada", "list": [1, 2], "nothing": None, "long": "x" * 6_000_000},
    task=lambda name: {"output": {"name": name}, "state": "completed", "error": None},
    secret=lambda name: f"<{name}>",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{ inputs.n }}", 3),
        ("{{inputs.list}}", [1, 2]),
        ("n = {{ inputs.n }}", "n = 3"),
        ("{{ inputs.who }}/{{ inputs.list }}/{{ inputs.nothing }}", "Ada/[1,2]/null"),
        ("{{ '{{' }}", "{{"),
        ("write {{ '{{' }} x {{ '}}' }}", "write {{ x }}"),
        ("{{ {'a': {'b': inputs.n}}}}", {"a": {"b": 3}}),
        ("{{ '}}' + \"}}\" }}", "}}}}"),
        ("{{ r'a\\d}}' }}", "a\\d}}"),
        ("a }} b", "a }} b"),
        ("{ {not} }", "{ {not} }"),
        ("{{ tasks.fetch.output.name }}", "fetch"),
        ("Bearer {{ secrets.KEY }}", "Bearer <KEY>"),
    ],
)
def test_strings_are_rendered(text: str, expected: Any) -> None:
    assert compile_template(text).render(SCOPE) == expected


def test_a_tree_keeps_its_shape_order_and_constants() -> None:
    constant = {"deep": [1, {"x": "y"}]}
    rendered = compile_template({"a": "{{ inputs.n }}", "b": constant, "c": [1, "{{ inputs.who }}"]}).render(SCOPE)
    assert rendered == {"a": 3, "b": constant, "c": [1, "Ada"]}
    assert list(rendered) == ["a", "b", "c"]
    assert rendered["b"] is constant


def test_a_tree_without_templates_is_given_out_as_it_is() -> None:
    parameters = {"a": [1, "b"]}
    template = compile_template(parameters)
    assert template.is_constant
    assert template.render(SCOPE) is parameters


@pytest.mark.parametrize("text", ["inputs.n > 2", "{{ inputs.n > 2 }}", "  {{ inputs.n > 2 }} "])
def test_a_condition_may_have_braces_or_not(text: str) -> None:
    assert compile_condition(text).test(SCOPE) is True


def test_a_condition_may_be_literal() -> None:
    assert compile_condition(False).test(SCOPE) is False


def test_a_condition_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ExpressionError, match="true or false"):
        compile_condition("inputs.n", "/stages/0/when").test(SCOPE)


def test_a_literal_list_may_hold_templates() -> None:
    assert compile_condition([1, "{{ inputs.n }}"]).render(SCOPE) == [1, 3]


@pytest.mark.parametrize("text", ["{{ a", "{{ 'a }}", "x {{", "{{ {'a': 1 }}"])
def test_braces_that_are_not_closed_are_a_problem_with_a_place(text: str) -> None:
    with pytest.raises(TemplateProblem) as caught:
        compile_template({"k/l": [text]}, "/parameters")
    assert caught.value.path == "/parameters/k~1l/0"


def test_every_problem_is_collected_and_the_rest_compiled() -> None:
    problems = TemplateProblems()
    template = compile_template({"a": "{{ 1 + }} {{ nope }} {{ tasks.t.output }}", "b": "{{"}, "/parameters", problems)
    assert [problem.path for problem in problems] == ["/parameters/a", "/parameters/a", "/parameters/b"]
    assert template.tasks() == {"t"}


def test_an_error_says_where_the_template_stands() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template({"q": ["{{ inputs.missing }}"]}, "/stages/0/tasks/0/parameters").render(SCOPE)
    assert caught.value.path == "/stages/0/tasks/0/parameters/q/0"
    assert caught.value.details == {
        "expression": "inputs.missing",
        "reason": caught.value.reason,
        "path": "/stages/0/tasks/0/parameters/q/0",
    }


def test_a_string_larger_than_an_output_is_refused() -> None:
    with pytest.raises(ExpressionError, match="longer"):
        compile_template("{{ inputs.long }}{{ inputs.long }}").render(SCOPE)


def test_secrets_and_tasks_of_a_tree_are_known() -> None:
    template = compile_template({"a": "{{ secrets.A }} {{ tasks.x.output }}", "b": ["{{ tasks.y.state }}"]})
    assert template.secrets() == {"A"}
    assert template.secrets_by_field() == {"a": {"A"}}
    assert template.tasks() == {"x", "y"}


def test_whether_data_holds_templates_is_seen_at_any_depth() -> None:
    assert has_template({"a": [{"b": "x {{ y }}"}]})
    assert not has_template({"a": [{"{{": "x"}]})
