from __future__ import annotations

import pytest

from contexten.extensions.flow.definition import is_flow_id, is_identifier, make_flow_id, make_identifier
from contexten.extensions.flow.definition.names import NameGuesser


@pytest.mark.parametrize(
    ("text", "name"), [("my-task", "my_task"), ("1st try", "_1st_try"), ("Ünïts", "Units"), ("!", "task")]
)
def test_a_name_is_mended_to_the_nearest_identifier(text: str, name: str) -> None:
    assert make_identifier(text) == name
    assert is_identifier(name)


def test_a_mended_name_is_not_one_that_is_taken() -> None:
    assert make_identifier("a", {"a", "a_2"}) == "a_3"
    assert len(make_identifier("x" * 80, {"x" * 64})) <= 64


@pytest.mark.parametrize("name", ["", "a b", "1a", "a-b", "é", "a" * 65, "a\n", None, 3])
def test_other_names_are_no_identifiers(name: object) -> None:
    assert not is_identifier(name)


@pytest.mark.parametrize("flow_id", ["", "a/b", "a\\b", "a\tb", " a", "a" * 129, "\ud800", None])
def test_ids_with_slashes_or_control_characters_are_refused(flow_id: object) -> None:
    assert not is_flow_id(flow_id)


def test_any_other_id_is_taken_as_it_is() -> None:
    assert is_flow_id("Ärger & co: 7")


@pytest.mark.parametrize(("text", "slug"), [("Daily Report!", "daily-report"), ("...", "flow"), ("A/B", "a-b")])
def test_made_ids_are_slugs(text: str, slug: str) -> None:
    assert make_flow_id(text) == slug
    assert make_flow_id(text, {slug}) == f"{slug}-2"


def test_a_near_name_is_guessed_and_a_far_one_is_not() -> None:
    guesser = NameGuesser()
    assert guesser.nearest("http_clinet", ["file_reader", "http_client"]) == "http_client"
    assert guesser.nearest("Http-Client", ["http_client"]) == "http_client"
    assert guesser.nearest("banana", ["http_client"]) is None


def test_guessing_ends_when_its_work_is_done() -> None:
    guesser = NameGuesser()
    known = [f"name_{number}" for number in range(30_000)]
    guesser.nearest("nane", known)
    assert guesser.nearest("name_1x", known) is None
