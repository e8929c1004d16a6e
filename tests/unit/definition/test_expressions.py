from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.definition import (
    ExpressionError,
    ExpressionProblem,
    Scope,
    compile_expression,
    compile_template,
)
from contexten.extensions.flow.definition.costs import Estimate, TooMuchWork
from contexten.extensions.flow.definition.syntax import read_tree

ROWS = [{"id": 3, "kind": "b", "cost": 1.5}, {"id": 1, "kind": "a", "cost": 2.0}, {"id": 2, "kind": "b", "cost": 0.5}]


def scope(**inputs: Any) -> Scope:
    tasks = {"fetch": {"output": {"rows": ROWS, "n": 3}, "state": "completed", "error": None}}
    return Scope(inputs=inputs, task=tasks.__getitem__, secret=lambda name: f"value of {name}")


def value(source: str, **inputs: Any) -> Any:
    return compile_expression(source).evaluate(scope(**inputs))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("tasks.fetch.output.n + 1", 4),
        ("tasks.fetch.output.rows[0].id", 3),
        ("tasks['fetch'].state == 'completed'", True),
        ("tasks.fetch.output.rows.filter(r, r.id > 1).map(r, r.id)", [3, 2]),
        ("tasks.fetch.output.rows.map(item, item.kind)", ["b", "a", "b"]),
        ("has(inputs.nothing) ? 1 : 2", 2),
        ("timestamp('2024-01-01T00:00:00+01:00')", "2023-12-31T23:00:00Z"),
        ("duration('90m')", "5400s"),
        ("duration('-1.5s')", "-1.5s"),
        ("{'a': [1u, 2.0, null]}", {"a": [1, 2.0, None]}),
        ("sum([1, 2, 3])", 6),
        ("sum(tasks.fetch.output.rows.map(r, r.cost))", 4.0),
        ("[1, 2].avg()", 1.5),
        ("min([3, 1]) + max([3, 1])", 4),
        ("sort_by(tasks.fetch.output.rows, 'id').map(r, r.id)", [1, 2, 3]),
        ("sort_by(['b', 'a'])", ["a", "b"]),
        ("group_by(tasks.fetch.output.rows, 'kind').a", [ROWS[1]]),
        ("unique([1, 1.0, true, 1, 'a', 'a', {'k': 1}, {'k': 1}])", [1, True, "a", {"k": 1}]),
        ("flatten([[1], [2, [3]], 4])", [1, 2, [3], 4]),
        ("join(['a', 1, null], '-')", "a-1-null"),
        ("'a,b'.split(',')", ["a", "b"]),
    ],
)
def test_expressions_choose_and_shape(source: str, expected: Any) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("inputs.nope", "'nope'"),
        ("inputs.nope + 1", "'nope'"),
        ("tasks.fetch.output.rows[7]", "3 items"),
        ("tasks.fetch.output.n.deep", "is a number"),
        ("inputs.x + 1.5", "convert"),
        ("b'x'", "bytes"),
        ("type(1)", "type"),
        ("0.0 / 0.0", "NaN"),
        ("{1: 2}", "strings"),
        ("9007199254740993", "2^53"),
        ("avg([])", "empty list"),
        ("sum(['a'])", "string"),
        ("max([1, 'a'])", "one kind"),
        ("1 / 0", "zero"),
    ],
)
def test_a_failed_evaluation_is_an_invalid_attempt_that_says_why(source: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value(source, x=1)
    assert caught.value.kind == "invalid"
    assert reason in caught.value.message
    assert source in caught.value.message


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "empty"),
        ("1 +", "Syntax"),
        ("nothing.at.all", "'nothing'"),
        ("sums([1])", "sum"),
        ("tasks", "name a task"),
        ("secrets", "secrets.NAME"),
        ("secrets.A.b", "secrets.NAME"),
        ("x" * 4097, "4,097"),
        ("(" * 40 + "1" + ")" * 40, "nested"),
        ("sum(1)", "sum"),
    ],
)
def test_what_does_not_compile_says_why(source: str, reason: str) -> None:
    with pytest.raises(ExpressionProblem) as caught:
        compile_expression(source)
    assert reason in caught.value.message


def test_an_expression_knows_what_it_reaches() -> None:
    source = "tasks.a.output.rows.filter(r, r.v > inputs['x-y'].z && r.u in tasks['b'].output).size() > index"
    expression = compile_expression(source)
    assert expression.tasks == {"a", "b"}
    assert expression.paths == {
        ("tasks", "a", "output", "rows"),
        ("tasks", "b", "output"),
        ("inputs", "x-y", "z"),
        ("index",),
    }


def test_only_the_tasks_and_secrets_that_are_named_are_asked_for() -> None:
    asked: list[str] = []

    def task(name: str) -> dict[str, Any]:
        asked.append(name)
        return {"output": 1, "state": "completed", "error": None}

    def secret(name: str) -> str:
        asked.append(f"secret {name}")
        return "s"

    there = Scope(task=task, secret=secret)
    assert compile_expression("tasks.a.output + 1 == 2").evaluate(there) is True
    assert compile_expression("'x' + secrets.KEY").evaluate(there) == "xs"
    assert asked == ["a", "secret KEY"]


def test_an_error_over_a_secret_says_nothing_of_it() -> None:
    with pytest.raises(ExpressionError) as caught:
        value("secrets.KEY + 1")
    assert "value of KEY" not in caught.value.message
    assert "withheld" in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "join(split(secrets.KEY, ''), '-')",
        "secrets.KEY.startsWith('a')",
        "secrets.KEY == 'a' ? 'yes' : 'no'",
        "size(secrets.KEY)",
        "int(secrets.KEY)",
        "inputs[secrets.KEY]",
        "[secrets.KEY].map(x, x.size())",
        "'Bearer ' + string(bytes(secrets.KEY))",
    ],
)
def test_a_secret_that_would_be_changed_where_no_mask_knows_it_is_refused(source: str) -> None:
    with pytest.raises(ExpressionProblem, match="joined to text"):
        compile_expression(source)


@pytest.mark.parametrize(
    "source",
    [
        "secrets.KEY",
        "'Bearer ' + secrets.KEY",
        "inputs.live ? secrets.KEY : secrets.OTHER + '!'",
        "{'a': [secrets.KEY], 'n': size(inputs.x)}",
    ],
)
def test_a_secret_may_be_joined_to_text_and_chosen(source: str) -> None:
    assert compile_expression(source).uses_secrets


@pytest.mark.parametrize(
    "source",
    [
        "inputs.long.map(x, x)",
        "inputs.long.filter(x, x > 0).map(x, x)",
        "[inputs.text]" + ".map(a, a + a)" * 20,
        "[[inputs.text]]" + ".map(a, [a, a, a, a])" * 15,
        "inputs.some.all(x, inputs.some.all(y, inputs.some.all(z, true)))",
        "inputs.some.map(x, inputs.text)",
        "join(inputs.some, inputs.text)",
        "inputs.huge.map(x, join(inputs.huge, inputs.text))",
        " + ".join(["((inputs.text + inputs.text) + (inputs.text + inputs.text))"] * 20),
    ],
)
def test_work_that_would_hold_the_process_is_refused_before_it_begins(source: str) -> None:
    values = {"long": list(range(9000)), "some": list(range(900)), "text": "x" * 1_000_000, "huge": ["x"] * 3000}
    with pytest.raises(ExpressionError) as caught:
        value(source, **values)
    assert "data_processor" in caught.value.message


def test_more_items_than_the_engine_goes_through_are_refused() -> None:
    with pytest.raises(ExpressionError, match="data_processor"):
        value("inputs.items.exists(x, x < 0)", items=list(range(20_000)))


def test_lists_of_a_few_thousand_items_are_fine() -> None:
    rows = [{"id": number, "name": f"row {number}"} for number in range(3000)]
    assert len(value("inputs.rows.filter(r, r.id >= 1000).map(r, {'id': r.id})", rows=rows)) == 2000
    assert value("inputs.rows.exists(r, r.name == 'row 2999')", rows=rows) is True


def test_large_values_can_be_chosen_from_without_measuring_them() -> None:
    assert value("size(inputs.rows) > 3 && inputs.rows[5] == 5", rows=list(range(50_000))) is True


def test_an_estimate_is_never_below_what_is_made() -> None:
    data = {"rows": ["abc"] * 100}
    estimate = Estimate({"inputs": data})
    tree = compile_expression("inputs.rows.map(r, r + r)")._tree
    assert tree is not None
    estimate.check(tree)
    assert estimate.work >= sum(len(row) * 2 for row in data["rows"])
    with pytest.raises(TooMuchWork):
        Estimate({"inputs": {"rows": ["x" * 100_000] * 2000}}).check(tree)


def test_a_tree_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="tree"):
        read_tree(b"\x12\x05\x22")


def test_other_places_bring_their_own_names() -> None:
    expression = compile_expression("data.rows.size() + 1", ("data",))
    assert expression.evaluate(Scope(data={"rows": [1, 2]})) == 3
    with pytest.raises(ExpressionProblem):
        compile_expression("tasks.a.output", ("data",))


def test_an_item_and_its_index_are_in_an_items_scope_only() -> None:
    template = compile_template("{{ item.id }}:{{ index }}")
    assert template.render(scope().with_values(item={"id": 7}, index=2)) == "7:2"
    with pytest.raises(ExpressionError, match="item is not in scope"):
        template.render(scope())
