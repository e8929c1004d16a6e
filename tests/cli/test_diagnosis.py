"""What the command line says of a machine and a database that make runs slow or wrong."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ONE = {"name": "one", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free", "level"), [(100 << 20, "note"), (100 << 30, "ok")])
def test_doctor_tells_when_little_space_is_left(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free * 2, free, free))
    (disk,) = [check for check in cli("doctor", "--json").data["checks"] if check["check"] == "disk"]
    assert disk["level"] == level
    assert disk["found"] == f"{free / 1e9:.1f} GB free"


def test_simulate_replays_the_runs_of_the_database(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    cli("run", flow_file(ONE))
    found = cli("simulate", "--slots", "3", "--json").data
    assert (found["runs"], found["from_history"], found["slots"]) == (1, 1, 3)
    assert {figures["strategy"] for figures in found["strategies"]} >= {"fifo", "priority"}


def test_verify_names_the_run_whose_journal_is_not_whole(
    cli: Callable[..., Any], flow_file: Callable[..., str], desk: Path
) -> None:
    cli("run", flow_file(ONE))
    assert cli("verify", "--json").data["ok"] is True
    (run,) = cli("list", "--runs", "--json").data["runs"]
    broken = sqlite3.connect(desk / "flow.sqlite3")
    broken.execute("DELETE FROM events WHERE type = 'task.completed'")
    broken.commit()
    broken.close()
    done = cli("verify", "--json")
    assert done.code == 1
    assert run["run_id"] in done.data["problems"][0]
