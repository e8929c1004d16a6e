"""`contexten-flow stats` and `contexten-flow export`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

VALUE = {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}


@pytest.fixture
def ran(cli: Cli, flow_file: Callable[..., str]) -> Cli:
    """After one run of a flow."""
    assert cli("run", flow_file(VALUE)).code == 0
    return cli


def test_stats_tell_how_runs_went(ran: Cli) -> None:
    done = ran("stats")
    assert done.code == 0
    head, row = done.out.splitlines()
    assert head.split()[:3] == ["flow", "runs", "succeeded"]
    assert "100.0%" in row
    by_tool = ran("stats", "--by", "tool", "--json").data
    assert [(row["key"], row["tasks"]) for row in by_tool["rows"]] == [("data_processor", 1)]


def test_stats_of_a_time_without_runs_say_so(ran: Cli) -> None:
    done = ran("stats", "--until", "2001-01-01")
    assert (done.code, done.out) == (0, "")
    assert "nothing has ended" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("stats", "--by", "week"), 2),
        (("stats", "--since", "yesterday"), 2),
        (("stats", "--flow", "nobody"), 1),
        (("export", "flows"), 2),
        (("export", "runs", "--flow", "nobody"), 1),
        (("export", "runs", "-o", "nowhere/runs.jsonl"), 2),
    ],
)
def test_wrong_usage_ends_with_its_code_and_leaves_no_file(
    ran: Cli, desk: Path, arguments: tuple[str, ...], code: int
) -> None:
    before = set(desk.iterdir())
    assert ran(*arguments).code == code
    assert set(desk.iterdir()) <= before


def test_an_export_goes_to_standard_output_or_into_a_file(ran: Cli, desk: Path) -> None:
    (run,) = [json.loads(line) for line in ran("export", "runs").out.splitlines()]
    assert run["state"] == "completed"
    assert ran("export", "events", "--format", "csv", "--output", "events.csv").code == 0
    with (desk / "events.csv").open(encoding="utf-8", newline="") as file:
        types = [row["type"] for row in csv.DictReader(file) if row["run_id"] == run["run_id"]]
    assert types[0] == "run.scheduled"
    assert types[-1] == "run.completed"
    assert not (desk / "events.csv.part").exists()
