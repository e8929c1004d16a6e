"""Answers read from words, and structures as arguments of a tool."""

from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow.models.answers import Misfit, as_arguments, read_answer

NUMBERS = {"type": "array", "items": {"type": "number"}}


@pytest.mark.parametrize(
    ("said", "schema", "answer"),
    [
        ("[1, 2]", NUMBERS, [1, 2]),
        ("So:\n```\n[1]\n```", NUMBERS, [1]),
        ('"quoted"', {"type": "string"}, "quoted"),
        ("plain words", {"type": "string"}, "plain words"),
        ("null", {"type": "null"}, None),
        ("anything", {"description": "as you like"}, "anything"),
    ],
)
def test_an_answer_is_read_as_its_schema_asks(said: str, schema: dict[str, Any], answer: Any) -> None:
    assert read_answer(said, schema) == answer


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("one and two", "the answer is no JSON"),
        ('["a"]', "/0"),
        ("```\n[1]\n```\nor\n```\n[2]\n```", "the answer is no JSON"),
        ("[" * 100_000, "the answer is no JSON"),
    ],
)
def test_what_does_not_fit_is_told(said: str, why: str) -> None:
    with pytest.raises(Misfit, match=why):
        read_answer(said, NUMBERS)


def test_an_object_is_the_arguments_themselves() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "integer"}}}
    assert as_arguments(schema) == (schema, None)


def test_anything_else_is_the_argument_answer() -> None:
    arguments, inner = as_arguments({"type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {"type": "null"}}})
    assert inner == "answer"
    assert arguments["properties"]["answer"] == {"type": "array", "items": {"$ref": "#/$defs/x"}}
    assert arguments["$defs"] == {"x": {"type": "null"}}


def test_references_that_would_lead_elsewhere_are_told_in_words() -> None:
    arguments, _ = as_arguments({"type": "array", "items": {"$ref": "#"}})
    assert arguments["properties"]["answer"].keys() == {"description"}
