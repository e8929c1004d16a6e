"""contexten-flow simulate: this database's runs, replayed through every strategy."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from contexten.extensions.flow import FlowService, FlowSettings, SchedulingStrategy
from contexten.extensions.flow.scheduling.in_force import MAX_CONCURRENT

SUM = {"name": "sum", "required_tools": ["data_processor"], "parameters": {"data": [1, 2, 3], "query": "sum(@)"}}


@pytest.fixture
def queue(desk: Path) -> Path:
    """A database with three queued runs of different deadlines, on which nothing drives."""
    database = desk / "flow.sqlite3"

    async def fill() -> None:
        async with FlowService(FlowSettings(database=database), drive=False) as flows:
            await flows.create_flow(
                flow_id="one", workflow_def={"stages": [{"name": "s", "tasks": [SUM | {"complexity": 10}]}]}
            )
            for deadline in (1000, 900, 25):
                await flows.execute_flow(flow_id="one", deadline=deadline)
            await flows.set_strategy(max_concurrent_flows=1)

    asyncio.run(fill())
    return database


def test_the_queue_is_replayed_through_every_strategy(cli: Callable[..., Any], queue: Path) -> None:
    found = cli("simulate", "--json").data
    assert (found["runs"], found["queued"], found["from_history"], found["slots"]) == (3, 3, 0, 1)
    figures = {row["strategy"]: row for row in found["strategies"]}
    assert list(figures) == list(SchedulingStrategy)
    assert figures["fifo"]["missed_deadlines"] == 1  # three runs of 10 s; the last has 25 s
    assert figures["deadline_aware"]["missed_deadlines"] == 0
    assert found["recommended"] == "deadline_aware"


def test_people_get_a_table_and_a_recommendation(cli: Callable[..., Any], queue: Path) -> None:
    done = cli("simulate")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["strategy", *SchedulingStrategy]
    assert re.search(r"\b([3-9]\.\d\d|10\.00) s", done.out)  # less what passed between the submissions
    assert "0 ended, 0 running and 3 queued runs, replayed in 1 slots" in done.err
    assert "recommended: deadline_aware" in done.err


def test_other_slots_may_be_tried(cli: Callable[..., Any], queue: Path) -> None:
    found = cli("simulate", "--slots", "3", "--json").data
    assert found["slots"] == 3
    assert all(row["mean_wait_s"] < 1 for row in found["strategies"])


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("slots", ["0", "-1", "100001", "many"])
def test_slots_that_are_none_end_with_2(cli: Callable[..., Any], slots: str) -> None:
    done = cli("simulate", "--slots", slots, "--json")
    assert done.code == 2
    assert "--slots" in done.data["error"]["message"]
    assert "--slots" in done.err
    assert "max_concurrent_flows" not in done.err


def test_as_many_slots_may_be_tried_as_may_be_set(cli: Callable[..., Any], queue: Path) -> None:
    assert cli("simulate", "--slots", str(MAX_CONCURRENT)).code == 0


def test_history_is_replayed_as_it_was(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    cli("run", flow_file(SUM))
    found = cli("simulate", "--json").data
    assert (found["runs"], found["from_history"], found["queued"]) == (1, 1, 0)
    assert all(row["longest_wait_s"] < 1 for row in found["strategies"])


def test_the_waits_are_drawn(cli: Callable[..., Any], queue: Path, desk: Path) -> None:
    done = cli("simulate", "--plot", "waits.svg")
    assert done.code == 0
    assert "drawn: waits.svg" in done.err
    svg = (desk / "waits.svg").read_text(encoding="utf-8")
    assert ET.fromstring(svg).tag.endswith("svg")
    assert all(name in svg for name in SchedulingStrategy)


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("file", ["waits.png", "waits", "nowhere/waits.svg"])
def test_a_file_that_cannot_be_drawn_ends_with_2(cli: Callable[..., Any], file: str) -> None:
    done = cli("simulate", "--plot", file)
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("queue")
def test_a_missing_chart_library_is_told(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygal", None)
    done = cli("simulate", "--plot", "waits.svg", "--json")
    assert done.code == 1
    assert "contexten-flow[plot]" in done.err
    assert cli("simulate", "--json").code == 0


def test_nothing_is_changed(cli: Callable[..., Any], queue: Path) -> None:
    def rows() -> list[list[Any]]:
        with sqlite3.connect(queue) as connection:
            found = [list(connection.execute(f"SELECT * FROM {table}")) for table in ("runs", "events", "settings")]
        connection.close()
        return found

    before = rows()
    assert cli("simulate").code == 0
    assert rows() == before


def test_without_a_run_there_is_nothing_to_replay(cli: Callable[..., Any], desk: Path) -> None:
    async def make() -> None:
        async with FlowService(FlowSettings(database=desk / "flow.sqlite3"), drive=False):
            pass

    asyncio.run(make())
    done = cli("simulate")
    assert (done.code, done.out) == (0, "")
    assert "nothing to replay" in done.err
    assert cli("simulate", "--json").data["runs"] == 0


def test_without_a_database_it_ends_with_3(cli: Callable[..., Any], desk: Path) -> None:
    done = cli("simulate", "--json")
    assert done.code == 3
    assert done.data["error"]["code"] == "no_database"
    assert list(desk.iterdir()) == []
