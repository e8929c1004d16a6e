"""Cutting answers at a number of characters."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.errors import InvalidArguments
from contexten_resources.outputs import MOST_CHARS
from contexten_tools.budget import RESOURCE_CHARS, bounded, cut_events, cut_tasks, offset_of, put_text
from contexten_tools.text import compact

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=60,
)


@given(VALUES, st.integers(900, 3000))
def test_the_parts_of_a_text_make_the_whole_and_each_fits(value: Any, max_chars: int) -> None:
    text = compact(value)
    offset, read = 0, ""
    while True:
        answer: dict[str, Any] = {"run_id": "run_1"}
        put_text(answer, "output", text, max_chars, lambda since: {"since": since}, offset=offset)
        assert len(compact(answer)) <= max_chars
        if "output" in answer:
            assert offset == 0
            assert answer["output"] == value
            return
        cut = answer["output_truncated"]
        assert cut["chars"] == len(text)
        read += cut["preview"]
        if "next" not in cut:
            break
        following = offset_of(cut["next"]["since"])
        assert following is not None
        assert following > offset
        offset = following
    assert json.loads(read) == value


def test_an_offset_past_the_end_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        put_text({}, "output", "[1]", 1000, lambda since: since, offset=3)


@pytest.mark.parametrize("since", ["", "text-", "text--1", "a8c039.2", "text-1x"])
def test_a_journal_cursor_is_no_place_in_a_text(since: str) -> None:
    assert offset_of(since) is None


@given(st.lists(st.text(max_size=200), max_size=40), st.integers(600, 4000))
def test_events_are_a_head_of_all_and_the_cursor_is_the_last_shown(texts: list[str], max_chars: int) -> None:
    events = [{"cursor": f"c.{number}", "type": "task.log", "data": {"m": text}} for number, text in enumerate(texts)]
    answer: dict[str, Any] = {"run_id": "r", "cursor": "c.end", "events": list(events)}
    cut_events(answer, max_chars)
    kept = answer["events"]
    assert kept == events[: len(kept)]
    if len(kept) < len(events):
        assert answer["more_events"] is True
        assert answer["cursor"] == kept[-1]["cursor"]
        assert len(compact(answer)) <= max_chars
    else:
        assert answer["cursor"] == "c.end"


def test_tasks_keep_their_order_and_failed_ones_stay() -> None:
    tasks = [{"name": f"t{number}", "state": "completed"} for number in range(100)]
    tasks[70]["state"] = "failed"
    tasks[90]["state"] = "running"
    answer: dict[str, Any] = {"run_id": "r", "tasks": list(tasks)}
    cut_tasks(answer, 1500)
    names = [task["name"] for task in answer["tasks"]]
    assert {"t70", "t90"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert answer["output_truncated"]["total"] == 100
    assert len(compact(answer)) <= 1500


@given(VALUES, st.integers(500, 2000))
def test_the_last_resort_always_fits_and_says_that_it_cut(value: Any, max_chars: int) -> None:
    answer = {"value": value}
    short = bounded(answer, max_chars)
    if len(compact(answer)) <= max_chars:
        assert short is answer
    else:
        assert "truncated" in short


@given(VALUES, st.integers(500, 2000))
def test_an_answer_about_a_run_fits_whatever_it_carries_and_keeps_its_next_call(value: Any, max_chars: int) -> None:
    step = {"tool": "wait_for_flow", "arguments": {"run_id": "run_1", "since": "c.1" * 40}}
    answer = {"run_id": "r" * 90, "cursor": "c.1", "note": compact(value), "inputs": value, "next": step}
    short = bounded(answer, max_chars)
    assert len(compact(short)) <= max_chars
    assert (short["run_id"], short["cursor"], short["next"]) == ("r" * 90, "c.1", step)


def test_the_resource_of_an_output_is_named_where_it_has_the_whole() -> None:
    assert RESOURCE_CHARS == MOST_CHARS
