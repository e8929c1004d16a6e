"""A wrong command line is told to people in words, and to programs as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

WRONG = {
    "no such option": (("list", "--frob"), "--frob", "contexten-flow list --help"),
    "no such command": (("frob",), "frob", "contexten-flow --help"),
    "no such value": (("config", "nope"), "nope", "contexten-flow config --help"),
    "no such choice": (("stats", "--by", "bogus"), "'--by': 'bogus' is not one of", "contexten-flow stats --help"),
    "no such choice in a group": (
        ("notify", "dispatches", "--state", "bogus"),
        "'--state': 'bogus' is not one of",
        "contexten-flow notify dispatches --help",
    ),
    "nothing given": (("status",), "ID", "contexten-flow status --help"),
    "no such option of all": (("--frob", "list"), "--frob", "contexten-flow --help"),
    "options that do not fit": (("status", "x", "--task", "t"), "--task", "contexten-flow"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_an_error_in_json(cli: Callable[..., Any], case: str) -> None:
    arguments, named, help_of = WRONG[case]
    done = cli(*arguments, "--json")
    assert done.code == 2
    assert set(done.data) == {"error"}
    error = done.data["error"]
    assert error["code"] == "usage"
    assert named in error["message"]
    assert help_of in error["next"]
    assert named in done.err


@pytest.mark.parametrize("case", WRONG)
def test_without_json_standard_output_stays_empty(cli: Callable[..., Any], case: str) -> None:
    arguments, named, _ = WRONG[case]
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert named in done.err
