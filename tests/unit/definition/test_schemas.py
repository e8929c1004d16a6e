from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.definition import (
    Catalog,
    WorkflowDefinition,
    apply_patch,
    check,
    check_inputs,
    json_schema,
    misfits,
)
from contexten.extensions.flow.definition.findings import Steps
from contexten.extensions.flow.definition.schemashape import ShapeWalk
from contexten.extensions.flow.errors import InvalidArguments


def flow(**task: Any) -> dict[str, Any]:
    return {"stages": [{"name": "s", "tasks": [{"name": "a", **task}]}]}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "strin"}, "/type"),
        ({"properties": {"a": {"minimum": "x"}}}, "/properties/a/minimum"),
        ({"$ref": "https://example.com/s.json"}, "/$ref"),
        ({"items": {"$ref": "other.json#/a"}}, "/items/$ref"),
        ({"$ref": "#/$defs/nothing"}, "/$ref"),
        ({"pattern": "(?=x)"}, "/pattern"),
        ({"patternProperties": {"(": {}}}, "/patternProperties/("),
    ],
)
def test_a_schema_that_is_none_or_leads_outside_is_refused(schema: Any, path: str, catalog: Catalog) -> None:
    issues = check(flow(output_schema=schema), catalog).issues
    assert [(issue.code, issue.path) for issue in issues] == [
        ("invalid_schema", f"/stages/0/tasks/0/output_schema{path}")
    ]
    inputs = check({**flow(), "inputs": schema}, catalog).issues
    assert [issue.path for issue in inputs] == [f"/inputs{path}"]


def test_a_reference_to_what_is_no_schema_is_refused_and_one_to_an_unknown_field_is_followed(catalog: Catalog) -> None:
    (issue,) = check(flow(output_schema={"$ref": "#/x", "x": 5}), catalog).issues
    assert issue.path == "/stages/0/tasks/0/output_schema/$ref"
    (issue,) = check(flow(output_schema={"$ref": "#/x", "x": {"type": "strin"}}), catalog).issues
    assert "one of array" in issue.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 1.0, "string", "null", "a", "#", "_x", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", "b"]), inner, max_size=3),
    max_leaves=4,
)
KEYWORDS = st.sampled_from([*sorted(jsonschema.Draft202012Validator.VALIDATORS), "$id", "$anchor", "$defs", "title"])
SCHEMAS = st.recursive(
    VALUES | st.dictionaries(KEYWORDS, VALUES, max_size=2),
    lambda inner: st.dictionaries(
        KEYWORDS, inner | st.lists(inner, max_size=2) | st.dictionaries(st.just("p"), inner), max_size=3
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_the_shape_that_is_accepted_is_that_of_the_meta_schema(schema: Any) -> None:
    flaws = [found for found in ShapeWalk(10_000).walk(schema, "") if found.kind == "flaw"]
    assert (not flaws) is jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA).is_valid(schema)


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        (lambda n: {"allOf": [{}] * n}, 10_000),
        (lambda n: {"allOf": [{"$ref": "#"}] * n}, 10_000),
        (lambda n: {"properties": {f"p{i}": {"$ref": f"#/properties/p{i - 1}"} for i in range(1, n)}}, 10_002),
    ],
)
def test_schemas_with_more_parts_than_can_be_checked_in_time_are_refused(
    unit: Callable[[int], Any], size: int, catalog: Catalog
) -> None:
    issues = check({**flow(), "inputs": unit(size)}, catalog).issues
    assert ("too_large", "/inputs") in [(issue.code, issue.path) for issue in issues]


def test_the_bound_on_parts_holds_for_all_schemas_of_a_definition(catalog: Catalog) -> None:
    tasks = [{"name": f"t{n}", "output_schema": {"allOf": [{}] * 99}} for n in range(101)]
    issues = check({"stages": [{"name": "s", "tasks": tasks}]}, catalog).issues
    assert [(issue.code, issue.path) for issue in issues] == [("too_large", "/stages/0/tasks/100/output_schema")]


def test_patterns_that_take_long_to_compile_are_refused(catalog: Catalog) -> None:
    schema = {"allOf": [{"pattern": f"(\\pL{{1,9}}){{9}}{n}"} for n in range(200)]}
    assert "too_large" in [issue.code for issue in check({**flow(), "inputs": schema}, catalog).issues]
    assert (
        check({**flow(), "inputs": {"pattern": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}}, catalog).issues == ()
    )


def test_inputs_of_a_sub_flow_are_checked_in_bounded_steps() -> None:
    schema = {"items": {"allOf": [{"type": "integer"}] * 100}}
    assert misfits(schema, list(range(50)), steps=Steps(50_000)) == ()
    (issue,) = misfits(schema, list(range(10_000)), steps=Steps(50_000))
    assert "too many steps" in issue.message


def test_references_inside_a_schema_are_fine(catalog: Catalog) -> None:
    schema = {"$defs": {"row": {"type": "object"}}, "type": "array", "items": {"$ref": "#/$defs/row"}}
    assert check(flow(output_schema=schema), catalog).issues == ()
    assert misfits(schema, [{}]) == ()
    assert misfits(schema, [1])[0].path == "/0"


def test_a_property_called_ref_is_no_reference(catalog: Catalog) -> None:
    assert check(flow(output_schema={"properties": {"$ref": {"type": "string"}}}), catalog).issues == ()


def test_misfits_say_where_and_what_was_meant() -> None:
    schema = {"properties": {"name": {"type": "string"}}, "additionalProperties": False}
    (issue,) = misfits(schema, {"nmae": "x"}, path="/inputs")
    assert (issue.path, issue.suggestion) == ("/inputs", "name")


def test_patterns_take_linear_time() -> None:
    assert misfits({"pattern": "(a+)+$"}, "a" * 5000 + "b")[0].path == ""
    assert misfits(
        {"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
        {
            "xa": 1,
            "b": "c",
            "d": 2,
        },
    )[0].path in ("/xa", "/b")


def test_references_that_multiply_come_to_an_end() -> None:
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}, {"$ref": f"#/$defs/s{n + 1}"}]} for n in range(30)}
    (issue,) = misfits({"$defs": {**steps, "s30": {}}, "$ref": "#/$defs/s0"}, 1)
    assert "too far" in issue.message
    assert "too far" in misfits({"$ref": "#"}, 1)[0].message


def test_a_huge_number_of_misfits_is_cut() -> None:
    assert len(misfits({"items": {"type": "string"}}, list(range(1000)))) == 20


def definition(inputs: Any) -> WorkflowDefinition:
    return WorkflowDefinition.model_validate({**flow(), "inputs": inputs})


def test_defaults_of_the_top_level_are_filled_in() -> None:
    schema = {"properties": {"a": {"default": 1}, "b": {"type": "integer"}}, "required": ["a", "b"]}
    given = {"b": 2}
    assert check_inputs(definition(schema), given) == ({"b": 2, "a": 1}, ())
    assert given == {"b": 2}


def test_inputs_that_do_not_fit_are_told() -> None:
    schema = {"properties": {"n": {"type": "integer"}}, "required": ["n", "m"]}
    _, issues = check_inputs(definition(schema), {"n": "x"})
    assert {issue.path for issue in issues} == {"", "/n"}
    _, issues = check_inputs(definition(None), [1])
    assert issues[0].code == "wrong_type"


def test_without_a_schema_any_object_will_do() -> None:
    assert check_inputs(definition(None), {"x": 1}) == ({"x": 1}, ())
    assert check_inputs(definition(None), None) == ({}, ())


def test_the_published_schema_is_one_and_describes_every_field() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = [schema, *(part for name, part in schema["$defs"].items() if name != "Context")]
    for part in parts:
        assert part["additionalProperties"] is False
        assert part["description"]
        for name, field in part["properties"].items():
            if "$ref" not in field and name != "context":
                assert field.get("description"), name


def test_the_published_schema_refuses_what_the_format_does_not_have() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(flow(when="true", for_each=[1]))
    for wrong in ({}, flow(nope=1), flow(on_interrupt="x"), flow(name="a-b"), flow(cache={}), flow(complexity="1")):
        assert not validator.is_valid(wrong)


def test_a_patch_makes_a_new_document() -> None:
    document = {"a": [1]}
    assert apply_patch(document, [{"op": "add", "path": "/a/-", "value": 2}]) == {"a": [1, 2]}
    assert document == {"a": [1]}


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "add"},
        ["x"],
        [{"op": "fly", "path": "/a"}],
        [{"path": "/a"}],
        [{"op": "remove", "path": "/nothing"}],
        [{"op": "remove", "path": "a"}],
        [{"op": "replace", "path": "/a/7", "value": 1}],
        [{"op": "test", "path": "/a", "value": 3}],
        [{"op": "add", "path": "/a/x", "value": 3}],
        [{"op": "move", "path": "/a"}],
        [{"op": "remove", "path": 5}],
    ],
)
def test_a_patch_that_does_not_fit_is_refused_with_its_place(patch: Any) -> None:
    with pytest.raises(InvalidArguments) as caught:
        apply_patch({"a": [1]}, patch)
    assert caught.value.issues[0].code == "invalid_patch"
