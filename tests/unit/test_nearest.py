"""Words that were meant, and the refusal of those that none was meant by."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.nearest import checked_choice, nearest_name
from contexten.extensions.flow.triggers.model import TriggerKind


def test_the_nearest_name_is_like_what_was_given() -> None:
    assert nearest_name("webhok", ["cron", "webhook"]) == "webhook"
    assert nearest_name("x" * 10_000, ["cron", "webhook"]) is None


def test_a_choice_is_one_of_those_there_are_or_the_default() -> None:
    assert checked_choice("kind", "cron", tuple(TriggerKind)) == "cron"
    assert checked_choice("kind", None, ("a", "b"), default="b") == "b"


@pytest.mark.parametrize("given", ["corn", "", None, ["cron"], 7, "c" * 5000])
def test_a_wrong_choice_is_told_with_all_that_there_are(given: object) -> None:
    with pytest.raises(InvalidArguments, match=r"kind is one of cron, once, not ") as refused:
        checked_choice("kind", given, ("cron", "once"))
    [issue] = refused.value.issues
    assert (issue.path, issue.code, issue.expected) == ("/kind", "invalid_value", ["cron", "once"])
    assert issue.suggestion == ("cron" if given == "corn" else None)
    assert len(str(refused.value)) < 300
