from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contexten.extensions.flow.agents.tools.data_processor import DataProcessorParameters
from contexten.extensions.flow.agents.tools.jmespath_query import QueryError, check_query, run_query
from contexten.extensions.flow.definition.values import check_json
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.outside.json_text import JsonTextError, parse_json

Run = Callable[..., Awaitable[Any]]

ORDERS = [
    {"id": 1, "status": "open", "total": 10.5, "lines": [{"sku": "a", "n": 2}]},
    {"id": 2, "status": "done", "total": 4, "lines": [{"sku": "b", "n": 1}, {"sku": "a", "n": 5}]},
    {"id": 3, "status": "open", "total": 6, "lines": []},
]


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await call
    assert caught.value.kind == "invalid"
    return caught.value.message


@pytest.mark.anyio
async def test_json_text_is_parsed_and_a_pointer_picks_a_part(run_tools: Run) -> None:
    text = json.dumps({"a": {"b/c": [1, 2]}})
    assert await run_tools("json_parser", text=text) == {"a": {"b/c": [1, 2]}}
    assert await run_tools("json_parser", text=text, pointer="/a/b~1c/1") == 2
    assert await run_tools("json_parser", text=text, pointer="") == {"a": {"b/c": [1, 2]}}


@pytest.mark.anyio
@pytest.mark.parametrize("value", [{"a": 1}, [1], 5, None, False])
async def test_a_value_that_is_parsed_already_passes_through(run_tools: Run, value: Any) -> None:
    assert await run_tools("json_parser", text=value) == value


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a": -Infinity}', "1e999", "[" * 200_000, "{'a': 1}", "[1] x"])
async def test_text_that_is_not_json_is_invalid(run_tools: Run, text: str) -> None:
    assert "JSON" in (message := await refusal(run_tools("json_parser", text=text))) or "nested" in message


@pytest.mark.anyio
@pytest.mark.parametrize("pointer", ["/b", "/a/5", "/a/x", "/a/-", "/a/0/x"])
async def test_a_pointer_to_nothing_is_invalid(run_tools: Run, pointer: str) -> None:
    assert "parameters/pointer" in await refusal(run_tools("json_parser", text='{"a": [1]}', pointer=pointer))


@pytest.mark.anyio
async def test_a_pointer_that_is_none_is_invalid(run_tools: Run) -> None:
    assert "parameters/pointer" in await refusal(run_tools("json_parser", text="{}", pointer="a/b"))


@pytest.mark.anyio
async def test_a_tool_that_needs_what_came_before_says_so(run_tools: Run) -> None:
    assert "parameters/text" in await refusal(run_tools("json_parser"))
    assert "parameters/data" in await refusal(run_tools("data_processor", query="a"))


@pytest.mark.anyio
async def test_the_body_of_an_http_answer_is_what_the_next_tool_works_on(run_tools: Run, web: Any) -> None:
    url = web.on("/orders", body=json.dumps({"orders": ORDERS}).encode(), headers={"Content-Type": "text/plain"})
    allowed = {"allow_hosts": (web.host,)}
    pipeline = ("http_client", "json_parser", "data_processor")
    assert await run_tools(*pipeline, settings=allowed, url=url, query="sum(orders[].total)") == 20.5


@pytest.mark.anyio
async def test_a_query_filters_reshapes_and_aggregates(run_tools: Run) -> None:
    query = "[?status=='open'].{id: id, skus: lines[].sku}"
    assert await run_tools("data_processor", data=ORDERS, query=query) == [
        {"id": 1, "skus": ["a"]},
        {"id": 3, "skus": []},
    ]
    assert await run_tools("data_processor", data=ORDERS, query="[].lines[].n | sum(@)") == 8
    assert await run_tools("data_processor", data=ORDERS, query="nothing.here") is None


@pytest.mark.anyio
async def test_an_expression_shapes_small_data(run_tools: Run) -> None:
    expression = "{'open': data.filter(o, o.status == 'open').size(), 'ids': data.map(o, o.id)}"
    output = await run_tools("data_processor", data=ORDERS, expression=expression)
    assert output == {"open": 2, "ids": [1, 2, 3]}


@pytest.mark.anyio
async def test_explicit_data_wins_over_the_output_before(run_tools: Run) -> None:
    assert await run_tools("json_parser", "data_processor", text="[1]", data=[2], query="[0]") == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"data": 1}, "exactly one"),
        ({"data": 1, "query": "a", "expression": "data"}, "exactly one"),
        ({"data": 1, "query": "a["}, "parameters/query"),
        ({"data": 1, "query": ""}, "parameters/query"),
        ({"data": 1, "query": "nope(@)"}, "parameters/query"),
        ({"data": "x", "query": "sum(@)"}, "parameters/query"),
        ({"data": {"a": [1, "x"]}, "query": "sort(a)"}, "parameters/query"),
        ({"data": "nan", "query": "to_number(@)"}, "not JSON data"),
        ({"data": 1, "query": "&a"}, "not JSON data"),
        ({"data": 1, "query": "a" * 5000}, "parameters/query"),
        ({"data": 1, "expression": "data +"}, "parameters/expression"),
        ({"data": 1, "expression": "other.x"}, "parameters/expression"),
        ({"data": 1, "expression": "data.x.y"}, "data.x.y"),
    ],
)
async def test_what_cannot_be_computed_is_invalid(run_tools: Run, parameters: dict[str, Any], words: str) -> None:
    assert words in await refusal(run_tools("data_processor", **parameters))


def test_a_query_or_expression_that_does_not_compile_is_known_at_creation() -> None:
    for parameters in ({"query": "a["}, {"expression": "data +"}, {"expression": "inputs.x"}, {"query": "nofunc(@)"}):
        with pytest.raises(ValidationError):
            DataProcessorParameters.model_validate(parameters)


QUERIES = [
    "@", "a", '"a b"', "a.b.c", "a.missing.c", "list[0]", "list[-1]", "list[99]", "rows[0].n", '`{"x": [1, null]}`',
    "'raw'", "`0`", "list[1:3]", "list[:2]", "list[2:]", "list[:]", "list[::2]", "list[::-1]", "list[-2:]",
    "list[1:-1:1]", "rows[0:2].n", "rows[:1].tags[1:][]", "text[0:2]", "list[0:2] | [0]", "[list[1:], list[:1]]",
    "{head: list[:1], tail: list[1:]}", "length(list[1:])", "rows[?tags[1:]].n", "list[5:]", "rows[*].n", "rows[].tags",
    "rows[].tags[]", "rows[*].tags[0]", "a.*", "*", "a.*.c", "a.*[]", "nested[][]", "nested[]", "nested[*][0]",
    "rows[?n > `1`].n", "rows[?n >= `2`].n", "rows[?n < `2`].n", "rows[?n <= `2`].n", "rows[?n == `2`].n",
    "rows[?n != `2`].n", "rows[?tags[0] == 'x'] | [0].n", "rows[?n > `1` && n < `3`].n",
    "rows[?n == `1` || n == `3`].n",
    "rows[?!tags].n", "missing || a.b.c", "list && text", "!list", "!missing", "!zero", "list > `1`", "text == 'hello'",
    "rows[*].[n, tags]", "rows[*].{n: n, first: tags[0]}", "missing.[a]", "missing.{a: a}", "rows | [1].n",
    "(rows[*].n) | [0]", "[a, list][1][0]", "rows[*].n | sum(@)", "sort_by(rows, &n)[::-1].n", "max_by(rows, &n).n",
    "min_by(rows, &n).n", "map(&n, rows)", "map(&tags[:1], rows)", "abs(`-1`)", "avg(list)", "ceil(`1.5`)",
    "contains(list, `2`)", "ends_with(text, 'lo')", "floor(`1.5`)", "join('-', keys(a))", "keys(a)", "length(text)",
    "max(list)", "merge(a, {z: `1`})", "min(list)", "not_null(missing, text, list)", "reverse(list)", "reverse(text)",
    "sort(list)", "starts_with(text, 'he')", "sum(list)", "to_array(text)", "to_string(list)", "to_number('12')",
    "type(list)", "values(a.b)",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_what_jmespath_finds(query: str) -> None:
    data = {
        "a": {"b": {"c": 1}},
        "a b": True,
        "list": [3, 1, 2, 5],
        "nested": [[1, [2]], [3], 4],
        "rows": [{"n": 1, "tags": ["x", "y"]}, {"n": 3, "tags": []}, {"n": 2, "tags": ["z"]}],
        "text": "hello",
        "zero": 0,
    }
    check_query(query)
    assert run_query(query, data) == jmespath.search(query, data)


def test_the_queries_tried_hold_every_kind_of_node_and_every_function() -> None:
    kinds, called = set(), set()

    def collect(node: Any) -> None:
        kinds.add(node["type"])
        if node["type"] == "function_expression":
            called.add(node["value"])
        for child in node["children"]:
            if isinstance(child, dict):
                collect(child)

    for query in QUERIES:
        collect(jmespath.compile(query).parsed)
    assert called == set(jmespath.functions.Functions.FUNCTION_TABLE)
    known = {name.removeprefix("visit_") for name in dir(jmespath.visitor.TreeInterpreter) if name.startswith("visit_")}
    assert kinds == known


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("nofunc(@)", "no function nofunc"),
        ("lenght(@)", "did you mean length"),
        ("a || rows[?nofunc(x)]", "no function nofunc"),
        ("{x: [sort_by(@, &nofunc(y))]}", "no function nofunc"),
        ("length()", "length.. takes 1 argument, not 0"),
        ("length(a, b)", "length.. takes 1 argument, not 2"),
        ("sort_by(a)", "sort_by.. takes 2 arguments, not 1"),
        ("not_null()", "at least 1 argument, not 0"),
        ("a[::0]", "step"),
    ],
)
def test_a_call_that_can_never_work_is_refused_before_any_data_is_there(query: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        check_query(query)


def test_a_query_whose_values_cannot_be_compared_says_that_it_does_not_fit() -> None:
    with pytest.raises(QueryError, match="does not fit the data"):
        run_query("a > `1`", {"a": "x"})
    with pytest.raises(QueryError, match="slice step"):
        run_query("a[::0]", {"a": [1]})


@pytest.mark.anyio
async def test_large_data_is_processed_without_holding_the_loop(run_tools: Run) -> None:
    rows = [{"id": number, "group": number % 7, "note": "x" * 20} for number in range(50_000)]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        output = await run_tools("data_processor", data=rows, query="length([?group==`3`])")
        group.cancel_scope.cancel()
    assert output == len(range(3, 50_000, 7))
    assert ticks > 5


@pytest.mark.parametrize(
    "query",
    [
        "[@,@]" + "|[@,@]" * 60,
        "[@,@][]" + "|[@,@][]" * 60,
        "[@,@]" + "|[@,@]" * 60 + "|to_string(@)",
        "[@,@]" + "|[@,@]" * 60 + "| @ == [@]",
        "{a:@,b:@}" + "|{a:@,b:@}" * 60,
        "join('', [@,@])" + "|join('', [@,@])" * 60,
        "map(&[@,@], [@,@])" + "|map(&[@,@], @)" * 60,
        "merge({a:@},{b:@})" + "|merge({a:@},{b:@})" * 60,
        "[[@,@],[@,@]][][]" + "|[[@,@],[@,@]][][]" * 30,
        "(" * 2000 + "@" + ")" * 2000,
        "!" * 4000 + "@",
        "a" + "[0]" * 1300,
        "a" + ".a" * 2000,
        "@" + "|@" * 2000,
    ],
)
def test_no_query_holds_the_process_or_fills_its_memory(query: str) -> None:
    with suppress(QueryError):
        check_json(run_query(query, "x"), max_bytes=1 << 20)


def test_joining_with_a_long_separator_is_bounded() -> None:
    with pytest.raises(QueryError, match="join"):
        run_query("join(a, b)", {"a": "x" * 100_000, "b": ["y"] * 10_000})


def test_usual_queries_over_large_data_stay_within_the_bounds() -> None:
    rows = [{f"f{column}": column for column in range(10)} for _ in range(20_000)]
    fields = ", ".join(f"f{column}: f{column}" for column in range(10))
    output = run_query(f"{{rows: [].{{{fields}}}, first: [0], count: length(@)}}", rows)
    assert output["count"] == len(output["rows"]) == 20_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None)
@given(JSON)
def test_json_text_comes_back_as_the_value_it_was_made_of(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@settings(deadline=None)
@given(st.text(max_size=50) | st.text(alphabet='{}[]",:\\ud8 0123456789eEnNaI-+.', max_size=60))
def test_any_text_is_either_storable_json_or_refused(text: str) -> None:
    try:
        value = parse_json(text)
    except JsonTextError:
        return
    check_json(value, max_bytes=1 << 20)


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
@settings(deadline=None)
@given(st.text(alphabet="ab.[]*?=@&|!(){}:,'`\"0123456789-<> ", min_size=1, max_size=60), JSON)
def test_any_query_over_any_data_ends_in_a_value_or_a_clear_error(query: str, data: Any) -> None:
    with suppress(QueryError):
        run_query(query, data)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "place"),
    [('"\\ud800"', "at the top"), ('{"a": ["x", "\\udc00!"]}', "at /a/1"), ('{"a": {"\\uD800": 1}}', "at /a: a key")],
)
async def test_a_lone_surrogate_in_parsed_text_is_refused_with_its_place(run_tools: Run, text: str, place: str) -> None:
    assert f"not JSON that can be kept: {place}" in await refusal(run_tools("json_parser", text=text))
    assert await run_tools("json_parser", text='"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_integers_beyond_two_to_the_53rd_become_strings() -> None:
    assert parse_json("[9007199254740992, 9007199254740993, -9007199254740993]") == [
        9007199254740992,
        "9007199254740993",
        "-9007199254740993",
    ]
    assert parse_json("1" * 10_000) == "1" * 10_000
