"""The arguments of a call: strict, all problems at once, with the nearest right name."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from contexten.extensions.flow.errors import InvalidArguments
from contexten_tools.arguments import INTEGRAL, MALFORMED, Arguments, JsonObject, input_schema, parse


class Sample(Arguments):
    exactly_one = ("flow_id", "run_id")

    flow_id: str | None = None
    run_id: str | None = None
    limit: Annotated[int, Field(ge=1, le=9), INTEGRAL] = 5
    mode: Literal["fast", "slow"] = "fast"
    inputs: JsonObject | None = None


def refused(**arguments: Any) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        parse("sample", Sample, arguments)
    return caught.value


def test_right_arguments_are_taken_with_defaults() -> None:
    parsed = parse("sample", Sample, {"flow_id": "f", "inputs": '{"a": 1}', "limit": 3.0, "run_id": None})
    assert parsed == Sample(flow_id="f", inputs={"a": 1}, limit=3)


def test_the_schema_lists_the_arguments_and_no_null() -> None:
    schema = input_schema(Sample)
    assert set(schema["properties"]) == {"flow_id", "run_id", "limit", "mode", "inputs"}
    assert schema["properties"]["flow_id"] == {"type": "string"}
    assert schema["properties"]["limit"]["minimum"] == 1
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [("flowid", "flow_id"), ("id", "flow_id"), ("run", "run_id"), ("Mode", "mode"), ("input", "inputs")],
)
def test_an_unknown_name_comes_with_the_nearest(given_name: str, meant: str) -> None:
    error = refused(flow_id="f", **{given_name: "x"})
    issue = next(issue for issue in error.issues if issue.code == "unknown_argument")
    assert issue.suggestion in (meant, "run_id")
    assert issue.path == f"/{given_name}"


def test_a_name_like_none_gets_no_guess() -> None:
    issue = refused(flow_id="f", zzzzzz=1).issues[0]
    assert issue.patch is None
    assert "flow_id" in issue.expected


def test_a_patch_never_overwrites_an_argument_that_was_given() -> None:
    issue = refused(flow_id="f", flowid="g").issues[0]
    assert issue.suggestion == "flow_id"
    assert issue.patch is None


def test_every_problem_is_told() -> None:
    error = refused(limit=99, mode="fst", inputs="[", other=1)
    codes = {issue.path: issue.code for issue in error.issues}
    assert codes == {
        "/limit": "out_of_range",
        "/mode": "invalid_value",
        "/inputs": "malformed_json",
        "/other": "unknown_argument",
        "": "missing_argument",
    }
    assert next(issue for issue in error.issues if issue.path == "/mode").suggestion == "fast"


@pytest.mark.parametrize("value", [True, "3", 2.5, [], {}])
def test_an_integer_is_an_integer(value: Any) -> None:
    assert [issue.path for issue in refused(flow_id="f", limit=value).issues] == ["/limit"]


@pytest.mark.parametrize("text", ["NaN", "{'a': 1}", '{"a": Infinity}', "[1]", "3", ""])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    assert refused(flow_id="f", inputs=text).issues[0].code in ("malformed_json", "wrong_type")


def test_text_with_a_key_twice_is_refused_with_its_place() -> None:
    (issue,) = refused(flow_id="f", inputs='{"a": {"b": 1, "b": 2}}').issues
    assert issue.code == "malformed_json"
    assert "/a/b" in issue.message


def test_arguments_that_are_no_object_are_told_as_such() -> None:
    issue = refused(**{MALFORMED: [1]}).issues[0]
    assert (issue.path, issue.code, issue.got) == ("", "malformed_json", "array")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["flow_id", "run_id", "limit", "mode", "inputs", "later", "x/y~", ""]), JSON))
def test_whatever_comes_is_parsed_or_refused_with_issues(arguments: dict[str, Any]) -> None:
    refusal: InvalidArguments | None = None
    try:
        parse("sample", Sample, arguments)
    except InvalidArguments as error:
        refusal = error
    if refusal is not None:
        assert refusal.issues
        assert refusal.next
        assert all(issue.path == "" or issue.path.startswith("/") for issue in refusal.issues)
