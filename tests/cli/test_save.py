"""contexten-flow save."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
FlowFile = Callable[..., str]

TASK = {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": [1], "query": "@"}}


def test_a_definition_is_saved_into_a_database_of_its_own_and_a_trigger_starts_it(
    cli: Cli, flow_file: FlowFile
) -> None:
    done = cli("save", flow_file(TASK), "--db", "new.sqlite3")
    assert done.code == 0, done.err
    flow_id = done.out.split()[0]
    [flow] = cli("list", "--db", "new.sqlite3", "--json").data["flows"]
    assert (flow["flow_id"], flow["name"]) == (flow_id, "Test")
    assert cli("list", "--runs", "--db", "new.sqlite3", "--json").data["runs"] == []
    assert cli("trigger", "create", "cron", flow_id, "--set", "expression=@daily", "--db", "new.sqlite3").code == 0


@pytest.mark.parametrize("given", ["argument", "definition"])
def test_an_id_that_is_there_gets_another_version_where_the_content_differs(
    cli: Cli, flow_file: FlowFile, given: str
) -> None:
    options, fields = (["--id", "report"], {}) if given == "argument" else ([], {"id": "report"})
    first = flow_file(TASK, **fields)
    second = flow_file(TASK, description="better", name="second.json", **fields)
    versions = [cli("save", file, *options, "--json").data for file in (first, first, second)]
    assert [(saved["flow_id"], saved["version"], saved["existing"]) for saved in versions] == [
        ("report", 1, False),
        ("report", 1, True),
        ("report", 2, False),
    ]
    assert "nothing changed" in cli("save", second, *options).err


def test_a_name_is_given_to_the_first_version_and_to_a_later_one(cli: Cli, flow_file: FlowFile) -> None:
    file = flow_file(TASK)
    names = [cli("save", file, "--id", "report", "--name", name, "--json").data for name in ("A", "B", "B")]
    assert [(saved["name"], saved["version"]) for saved in names] == [("A", 1), ("B", 2), ("B", 2)]


def test_a_definition_comes_from_standard_input(cli: Cli, desk: Path, flow_file: FlowFile) -> None:
    text = (desk / flow_file(TASK)).read_text()
    assert cli("save", "-", "--id", "piped", stdin=text).out.split()[:3] == ["piped", "version", "1"]


def test_warnings_are_told_and_are_in_the_json(cli: Cli, flow_file: FlowFile) -> None:
    task = {"name": "get", "required_tools": ["http_client"], "parameters": {"url": "http://127.0.0.1/"}}
    told = cli("save", flow_file(task))
    assert told.code == 0
    assert "private_address" in told.err
    [warning] = cli("save", flow_file(task), "--json").data["warnings"]
    assert warning["code"] == "private_address"


def test_a_definition_with_problems_is_not_saved(cli: Cli, flow_file: FlowFile) -> None:
    done = cli("save", flow_file({**TASK, "required_tools": ["data_procesor"]}), "--json")
    assert done.code == 1
    assert done.data["error"]["issues"][0]["suggestion"] == "data_processor"
    assert cli("save", "nothing.json").code == 2
    assert json.loads(cli("list", "--json").out)["flows"] == []
