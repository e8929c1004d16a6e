from __future__ import annotations

import enum
import json
from typing import Any

import pytest

from contexten.extensions.flow.definition import NotJson, check_json


class Colour(enum.StrEnum):
    RED = "red"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_plain_values_become_compact_text() -> None:
    assert check_json({"a": [1, 2.5, None, True, "é"]}, max_bytes=100) == '{"a":[1,2.5,null,true,"é"]}'


def test_tuples_become_lists_and_string_enums_their_value() -> None:
    assert json.loads(check_json({"a": (1, 2), "c": Colour.RED}, max_bytes=100)) == {"a": [1, 2], "c": "red"}


@pytest.mark.parametrize(
    ("value", "path", "code"),
    [
        ({"a": float("nan")}, "/a", "not_json"),
        ([1, float("-inf")], "/1", "not_json"),
        ({"a/b": [2**53 + 1]}, "/a~1b/0", "not_json"),
        ({1: 2}, "", "not_json"),
        ({"a": {"b": object()}}, "/a/b", "not_json"),
        ([b"bytes"], "/0", "not_json"),
        ({"a": ["\ud800"]}, "/a/0", "not_json"),
        ({"a": {"\ud800": 1}}, "/a", "not_json"),
        ("x" * 101, "", "too_large"),
        ("é" * 60, "", "too_large"),
    ],
)
def test_what_is_no_json_data_is_refused_with_its_place(value: Any, path: str, code: str) -> None:
    with pytest.raises(NotJson) as caught:
        check_json(value, max_bytes=100)
    assert (caught.value.path, caught.value.code) == (path, code)


def test_the_largest_integers_are_kept() -> None:
    assert json.loads(check_json([2**53, -(2**53)], max_bytes=100)) == [2**53, -(2**53)]


def test_depth_50_is_the_deepest() -> None:
    check_json(nested(50), max_bytes=1000)
    with pytest.raises(NotJson) as caught:
        check_json(nested(51), max_bytes=1000)
    assert caught.value.code == "too_deep"


def test_a_cycle_is_too_deep() -> None:
    ring: dict[str, Any] = {}
    ring["again"] = ring
    with pytest.raises(NotJson) as caught:
        check_json(ring, max_bytes=1 << 20)
    assert caught.value.code == "too_deep"


def test_parts_shared_many_times_over_are_counted_each_time() -> None:
    value: Any = ["x" * 100]
    for _ in range(45):
        value = [value, value]
    with pytest.raises(NotJson) as caught:
        check_json(value, max_bytes=1 << 20)
    assert caught.value.code == "too_large"
