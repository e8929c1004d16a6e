"""contexten-flow strategy, and the flags of serve that change the same."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from contexten.extensions.flow import FlowService, FlowSettings, SchedulingStrategy

SUM = {"name": "sum", "required_tools": ["data_processor"], "parameters": {"data": [1, 2, 3], "query": "sum(@)"}}


@pytest.fixture
def database(desk: Path) -> Path:
    """A database with two queued runs, on which nothing drives."""
    path = desk / "flow.sqlite3"

    async def fill() -> None:
        async with FlowService(FlowSettings(database=path), drive=False) as flows:
            await flows.create_flow(flow_id="one", workflow_def={"stages": [{"name": "s", "tasks": [SUM]}]})
            for _ in range(2):
                await flows.execute_flow(flow_id="one")

    asyncio.run(fill())
    return path


@pytest.mark.usefixtures("database")
def test_the_strategy_and_the_limit_in_force_are_shown(cli: Callable[..., Any]) -> None:
    found = cli("strategy", "--json").data
    assert (found["strategy"], found["max_concurrent_flows"], found["queued"]) == ("fifo", 100, 2)
    done = cli("strategy")
    assert done.out.split() == ["fifo", "100", "slots"]
    assert "2 queued" in done.err


@pytest.mark.usefixtures("database")
def test_both_are_changed_and_remembered(cli: Callable[..., Any]) -> None:
    done = cli("strategy", "Deadline-Aware", "--slots", "1")
    assert (done.code, done.out.split()) == (0, ["deadline_aware", "1", "slot"])
    assert "2 queued runs are now ordered by deadline_aware" in done.err
    change = cli("strategy", "--slots", "7", "--json").data
    assert change["before"] == {"strategy": "deadline_aware", "max_concurrent_flows": 1}
    assert change["after"] == {"strategy": "deadline_aware", "max_concurrent_flows": 7}
    assert cli("strategy", "--json").data["max_concurrent_flows"] == 7


def test_the_journal_says_that_the_command_line_changed_it(cli: Callable[..., Any], database: Path) -> None:
    cli("strategy", "priority")

    async def actors() -> list[str | None]:
        async with FlowService(FlowSettings(database=database), drive=False) as flows:
            return [event.actor for event in await flows.events() if event.type == "scheduler.changed"]

    assert asyncio.run(actors()) == ["contexten-flow/cli/strategy"]


@pytest.mark.usefixtures("database")
def test_a_rehearsal_changes_nothing(cli: Callable[..., Any]) -> None:
    found = cli("strategy", "priority", "--slots", "2", "--dry-run", "--json").data
    assert found["dry_run"]
    assert found["after"] == {"strategy": "priority", "max_concurrent_flows": 2}
    assert [row["strategy"] for row in found["forecast"]["strategies"]] == list(SchedulingStrategy)
    done = cli("strategy", "priority", "--dry-run")
    assert [line.split()[0] for line in done.out.splitlines()] == ["strategy", *SchedulingStrategy]
    assert "Nothing was changed" in done.err
    assert cli("strategy", "--dry-run", "--json").data["after"]["strategy"] == "fifo"
    assert cli("strategy", "--json").data["strategy"] == "fifo"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_mistyped_name_ends_with_2_and_the_nearest_one(cli: Callable[..., Any], flags: list[str]) -> None:
    done = cli("strategy", "priorty", "--json", *flags)
    assert done.code == 2
    assert done.data["error"]["issues"][0]["suggestion"] == "priority"
    assert "did you mean: priority" in done.err
    assert "set_strategy" not in done.err


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("slots", ["0", "-1", "100001", "many"])
def test_slots_that_are_none_end_with_2(cli: Callable[..., Any], slots: str) -> None:
    assert cli("strategy", "--slots", slots).code == 2


def test_without_a_database_it_ends_with_3(cli: Callable[..., Any], desk: Path) -> None:
    done = cli("strategy", "priority", "--json")
    assert (done.code, done.data["error"]["code"]) == (3, "no_database")
    assert list(desk.iterdir()) == []


def _server(desk: Path, *flags: str) -> StdioServerParameters:
    arguments = ["-m", "contexten_server", "serve", "--db", str(desk / "flow.sqlite3"), *flags]
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=desk)


async def _scheduler(client: Client) -> tuple[str, int]:
    result = await client.call_tool("get_metrics", {})
    assert result.structured_content is not None
    scheduler = result.structured_content["scheduler"]
    return scheduler["strategy"], scheduler["max_concurrent_flows"]


@pytest.mark.anyio
async def test_the_flags_of_serve_go_before_what_is_remembered_and_are_remembered(desk: Path) -> None:
    with anyio.fail_after(60):
        async with Client(_server(desk, "--strategy", "priority", "--max-concurrent-flows", "3")) as client:
            assert await _scheduler(client) == ("priority", 3)
        async with Client(_server(desk, "--max-concurrent-flows", "5")) as client:
            assert await _scheduler(client) == ("priority", 5)


@pytest.mark.anyio
async def test_a_running_server_obeys_the_command(desk: Path) -> None:
    command = [sys.executable, "-m", "contexten_server", "strategy", "priority", "--slots", "2", "--json"]
    with anyio.fail_after(60):
        async with Client(_server(desk)) as client:
            assert await _scheduler(client) == ("fifo", 100)
            done = await anyio.run_process(command, cwd=desk)
            assert json.loads(done.stdout)["after"] == {"strategy": "priority", "max_concurrent_flows": 2}
            while await _scheduler(client) != ("priority", 2):  # it hears of it within 0.3 s
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["--strategy", "priorty"], "did you mean: priority"), (["--max-concurrent-flows", "0"], "1 to 100000")],
)
def test_flags_that_are_wrong_end_serve_with_2_before_it_starts(desk: Path, flags: list[str], told: str) -> None:
    command = [sys.executable, "-m", "contexten_server", "serve", *flags]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert list(desk.iterdir()) == []
