"""No input crashes the checker, and what it says of a definition holds."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from typing import Any

import jsonpointer
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from contexten.extensions.flow.definition import (
    AgentSpec,
    Catalog,
    Expression,
    ExpressionError,
    ExpressionProblem,
    NotJson,
    Scope,
    TemplateProblem,
    ToolSpec,
    apply_patch,
    check,
    check_json,
    compile_expression,
    compile_plan,
    compile_template,
    json_schema,
)
from contexten.extensions.flow.errors import AttemptError


class Fetch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    timeout_s: float | None = None


CATALOG = Catalog(
    tools={"fetch": ToolSpec(name="fetch", parameters=Fetch)},
    agents=(AgentSpec(name="builtin", agent_type="tool", tools=("fetch",), builtin=True),),
    secrets=frozenset({"TOKEN"}),
)
SCHEMA = jsonschema.Draft202012Validator(json_schema())
quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

# Definitions that are nearly right: known keys, with values that are right, nearly right or anything.
names = st.sampled_from(["a", "b", "c", "my-task", "1st", "a", "tasks", ""])
templates = st.sampled_from(
    [
        "{{ tasks.a.output }}",
        "{{ tasks.b.output.rows[0] }} and {{ inputs.x }}",
        "{{ tasks.my-task.output }}",
        "{{ tasks.aa.output }}",
        "{{ tasks.a.outputs }}",
        "{{ secrets.TOKN }}",
        "{{ item }}",
        "{{ 1 + }}",
        "{{ a.output }}",
        "{{",
        "plain",
    ]
)
nearly: st.SearchStrategy[Any] = st.sampled_from(
    ["3", 1, True, "true", None, [], {}, "a", "Parallel", "retry", -1, 1.5]
)


def objects(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    misspelt = {"paramters": nearly, "depends": nearly, "nmae": names, "timeout": nearly, "cache": nearly}
    return st.fixed_dictionaries({}, optional={**fields, **misspelt})


tasks = objects(
    {
        "name": names | nearly,
        "type": st.sampled_from(["tool", "wait", "flow", "agent", "free text", "Wait"]) | nearly,
        "required_tools": st.lists(st.sampled_from(["fetch", "fetsh", "zzz"]), max_size=2) | nearly,
        "parameters": st.dictionaries(
            st.sampled_from(["url", "ulr", "timeout_s", "seconds", "until", "flow_id"]), templates | nearly, max_size=3
        )
        | nearly,
        "depends_on": st.lists(names | st.sampled_from(["stage:s", "stage:t", "bb"]), max_size=2) | nearly,
        "when": templates | nearly,
        "for_each": templates | nearly | st.lists(json_values, max_size=2),
        "retry": objects({"max_attempts": nearly, "on": nearly}) | nearly,
        "complexity": nearly,
        "output_schema": st.sampled_from([{"type": "strin"}, {"type": "string"}, {"$ref": "http://x"}]) | nearly,
        "on_interrupt": nearly,
        "max_parallel": nearly,
    }
)
stages = objects(
    {
        "name": st.sampled_from(["s", "t", "my stage"]) | nearly,
        "tasks": st.lists(tasks | nearly, max_size=3) | nearly,
        "execution_mode": st.sampled_from(["parallel", "sequential", "Parallel", "paralel"]) | nearly,
        "depends_on": st.lists(st.sampled_from(["s", "t", "tt", "my stage"]), max_size=2) | nearly,
        "when": templates | nearly,
    }
)
broken_definitions = objects(
    {
        "id": st.sampled_from(["ok", "a/b", " x", ""]) | nearly,
        "stages": st.lists(stages | nearly, max_size=3),
        "inputs": st.sampled_from([{"properties": {"x": {}}}, {"type": 3}]) | nearly,
        "output": templates | nearly,
        "context": st.sampled_from([{"timeout": 3}, {"timeout": "3"}, {"timeout": 0}, {"k": 1}]) | nearly,
        "tasks": st.lists(tasks, max_size=2),
        "tags": nearly,
    }
)


@st.composite
def valid_definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Definitions that are right: dependencies lead back, templates name what ran before."""
    count = draw(st.integers(1, 3))
    made: list[str] = []
    built = []
    for stage in range(count):
        here = []
        for index in range(draw(st.integers(1, 3))):
            name = f"t{stage}_{index}"
            task: dict[str, Any] = {"name": name}
            if made:
                before = draw(st.sampled_from(made))
                if draw(st.booleans()):
                    task["depends_on"] = [before]
                if draw(st.booleans()):
                    task["parameters"] = {"url": f"http://h/{{{{ tasks.{before}.output }}}}"}
                    task["required_tools"] = ["fetch"]
                if draw(st.booleans()):
                    task["when"] = f"tasks.{before}.state == 'completed'"
            if draw(st.booleans()):
                task |= {"type": "wait", "parameters": {"seconds": draw(st.integers(0, 5))}}
                task.pop("required_tools", None)
            if draw(st.booleans()):
                task["retry"] = {"max_attempts": draw(st.integers(1, 9)), "delay_s": draw(st.floats(0, 10))}
            if draw(st.booleans()):
                task["complexity"] = draw(st.floats(0.1, 10) | st.integers(1, 9))
            here.append(task)
            made.append(name)
        part: dict[str, Any] = {"name": f"s{stage}", "tasks": here}
        if draw(st.booleans()):
            part["execution_mode"] = draw(st.sampled_from(["sequential", "parallel"]))
        built.append(part)
    definition: dict[str, Any] = {"stages": built}
    if draw(st.booleans()):
        definition["context"] = {"timeout": draw(st.integers(1, 100)), "free": draw(st.text(max_size=3))}
    if draw(st.booleans()):
        definition["output"] = {"all": f"{{{{ tasks.{made[-1]}.output }}}}"}
    return definition


@quick
@given(json_values | st.text())
def test_nothing_that_is_given_crashes_the_checker(raw: Any) -> None:
    report = check(raw, CATALOG)
    assert (report.definition is None) == bool(report.issues)
    for issue in (*report.issues, *report.warnings):
        json.dumps(issue.as_dict(), allow_nan=False).encode()


@settings(quick, max_examples=20)
@given(broken_definitions)
def test_every_patch_removes_its_problem_and_brings_no_other(raw: dict[str, Any]) -> None:
    given_one = copy.deepcopy(raw)
    report = check(raw, CATALOG)
    assert raw == given_one
    before = Counter(issue.code for issue in report.issues)
    for issue in report.issues:
        if issue.patch:
            after = Counter(found.code for found in check(apply_patch(raw, issue.patch), CATALOG).issues)
            assert after <= before
            assert after[issue.code] < before[issue.code]


@settings(quick, max_examples=30)
@given(broken_definitions)
def test_the_patches_of_one_answer_apply_one_after_another_and_take_nothing_away(raw: dict[str, Any]) -> None:
    whole = [operation for issue in check(raw, CATALOG).issues for operation in issue.patch or ()]
    apply_patch(raw, whole)
    for operation in whole:
        if operation["op"] == "remove":
            assert jsonpointer.resolve_pointer(raw, operation["path"]) in (None, "", [], {})


@quick
@given(broken_definitions)
def test_every_issue_of_a_broken_definition_points_into_what_was_given(raw: dict[str, Any]) -> None:
    for issue in check(raw, CATALOG).issues:
        place: Any = raw
        for token in issue.path.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            place = place[int(key)] if isinstance(place, list) else place[key]


@quick
@given(broken_definitions)
def test_what_is_accepted_is_accepted_again_with_the_same_meaning(raw: dict[str, Any]) -> None:
    report = check(raw, CATALOG)
    if report.definition is not None and report.plan is not None:
        SCHEMA.validate(raw)
        again = check(json.dumps(report.definition.as_dict()), CATALOG)
        assert again.definition == report.definition
        assert compile_plan(report.definition).order == report.plan.order


@quick
@given(valid_definitions())
def test_a_valid_definition_is_accepted_fits_the_schema_and_comes_back_unchanged(raw: dict[str, Any]) -> None:
    report = check(raw, CATALOG)
    assert report.issues == ()
    assert report.definition is not None
    assert report.plan is not None
    SCHEMA.validate(raw)
    assert report.definition.as_dict() == raw
    places = {name: place for place, name in enumerate(report.plan.order)}
    for node in report.plan.tasks.values():
        assert all(places[other] < places[node.name] for other in node.requires)


pieces = st.sampled_from(
    [
        *(
            "tasks.a.output",
            "inputs",
            ".x",
            "[0]",
            "['k']",
            "(",
            ")",
            "+",
            "==",
            "&&",
            "?",
            ":",
            "1",
            "2.5",
            "'s'",
            "{",
        ),
        *("}", ".map(r, r)", ".filter(r, r > 1)", ".sum()", "sort_by(", ",", "has(", "null", "!", "-", "in", "1u"),
        *("secrets.TOKEN", ".join('-')", "item", "size(", "timestamp('2024-01-01T00:00:00Z')", "b'x'", "\n", "//"),
        *("[", "]", "\ud800"),
    ]
)
SCOPE = Scope(
    inputs={"x": [1, 2, {"k": None}], "k": {"x": 2.5}},
    task=lambda name: {"output": [3, 1, 2], "state": "completed", "error": None},
    secret=lambda name: "hush-hush",
    item={"x": "s"},
    index=1,
)


def problem_of(source: str) -> Exception | None:
    """What compiling and evaluating the expression raised on purpose; anything else goes through."""
    try:
        check_json(compile_expression(source).evaluate(SCOPE), max_bytes=1 << 20)
    except (ExpressionProblem, ExpressionError) as problem:
        return problem
    return None


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=10).map("".join) | st.text(max_size=20))
def test_no_expression_crashes_and_no_error_tells_a_secret(source: str) -> None:
    problem = problem_of(source)
    if problem is not None:
        assert str(problem)
        assert "hush-hush" not in str(problem)
        assert not isinstance(problem, AttemptError) or problem.kind == "invalid"


paths = st.lists(
    st.sampled_from([".x", ".k", ".nope", "[0]", "[2]", "[9]", "['x']", '["k"]', ".output", ".state"]), max_size=4
).map("".join)


@quick
@given(st.sampled_from(["inputs", "tasks.a", "item", "context", "run"]), paths)
def test_a_plain_path_means_the_same_with_and_without_cel(root: str, path: str) -> None:
    def outcome(expression: Expression) -> tuple[str, Any]:
        try:
            return "value", expression.evaluate(SCOPE)
        except ExpressionError:
            return "error", None

    plain = compile_expression(root + path)
    through_cel = compile_expression(f"true ? dyn({root}{path}) : dyn(null)")
    assert outcome(plain) == outcome(through_cel)


@quick
@given(st.text(alphabet="{}' \"ax.+", max_size=16))
def test_any_string_is_a_template_or_a_named_problem(text: str) -> None:
    try:
        rendered = compile_template(text).render(SCOPE)
    except (TemplateProblem, ExpressionError) as problem:
        rendered = str(problem)
    assert rendered is not None or "{{" in text
    assert "{{" in text or rendered == text


@quick
@given(json_values)
def test_checked_values_come_back_from_their_text_unchanged(value: Any) -> None:
    try:
        returned = json.loads(check_json(value, max_bytes=1 << 16))
    except NotJson:
        with pytest.raises((ValueError, AssertionError)):
            assert_is_plain_json(value)
    else:
        assert returned == value


def assert_is_plain_json(value: Any) -> None:
    """Raises where the value breaks a rule of JSON data, found another way than by the function under test."""
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    for number in re.findall(r"(?<![\w.\"])-?\d+(?![\w.])", json.dumps(strings_out(value))):
        assert abs(int(number)) <= 2**53


def strings_out(value: Any) -> Any:
    if isinstance(value, dict):
        return [strings_out(inner) for inner in value.values()]
    return (
        [strings_out(inner) for inner in value]
        if isinstance(value, list)
        else None
        if isinstance(value, str)
        else value
    )
