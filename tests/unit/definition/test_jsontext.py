from __future__ import annotations

import pytest

from contexten.extensions.flow.definition import DuplicateKeys, load_json


def test_text_without_repeated_keys_is_read_as_it_stands() -> None:
    assert load_json('{"a": [{"a": 1}, {"a": 2}]}') == {"a": [{"a": 1}, {"a": 2}]}


def test_repeated_keys_are_named_with_their_places() -> None:
    with pytest.raises(DuplicateKeys, match=r"the key 'b' is there more than once, at /a/1/b, and 1 more") as caught:
        load_json('{"a": [0, {"b": 1, "b": {"c": 1, "c": 2}}]}')
    assert caught.value.keys == (("/a/1/b", "b"), ("/a/1/b/c", "c"))
    assert caught.value.document == {"a": [0, {"b": {"c": 2}}]}


def test_no_more_places_are_told_than_can_be_read() -> None:
    with pytest.raises(DuplicateKeys) as caught:
        load_json("[" + ",".join(['{"a": 1, "a": 2}'] * 100) + "]")
    assert len(caught.value.keys) == 20
