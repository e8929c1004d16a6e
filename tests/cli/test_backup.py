"""backup and restore from the command line, with and without a server on the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from contexten.extensions.flow import FlowService, FlowSettings

SUM = {"name": "sum", "required_tools": ["data_processor"], "parameters": {"data": [1, 2, 3], "query": "sum(@)"}}


@pytest.fixture
def run_id(cli: Callable[..., Any], flow_file: Callable[..., str]) -> str:
    """A completed run on the database."""
    return str(cli("run", flow_file(SUM), "--json").data["run_id"])


def test_a_backup_takes_the_database_back_to_its_time(
    cli: Callable[..., Any], flow_file: Callable[..., str], run_id: str, desk: Path
) -> None:
    made = cli("backup", "kept.sqlite3")
    assert made.code == 0
    assert str(desk / "kept.sqlite3") in made.out
    assert "sound" in made.err
    cli("run", flow_file(SUM, name="later.json"))
    assert len(cli("list", "--runs", "--json").data["runs"]) == 2
    back = cli("restore", "kept.sqlite3", "--json")
    assert back.code == 0
    assert back.data["runs"] == 1
    assert [run["run_id"] for run in cli("list", "--runs", "--json").data["runs"]] == [run_id]
    assert len(cli("list", "--runs", "--json", "--db", back.data["replaced"]).data["runs"]) == 2
    assert cli("verify").code == 0


@pytest.mark.usefixtures("run_id")
def test_without_a_file_backups_gather_beside_the_database(cli: Callable[..., Any], desk: Path) -> None:
    made = cli("backup", "--keep", "1", "--json")
    assert made.code == 0
    assert Path(made.data["path"]).parent == desk / "backups"
    assert made.data["runs"] == 1
    assert made.data["removed"] == []


@pytest.mark.usefixtures("run_id")
def test_a_backup_is_checked_without_being_changed(cli: Callable[..., Any], desk: Path) -> None:
    cli("backup", "copies/")
    (copy,) = (desk / "copies").iterdir()
    assert cli("verify", "--db", str(copy), "--json").data["ok"]
    assert list((desk / "copies").iterdir()) == [copy]


@pytest.mark.usefixtures("run_id")
def test_what_cannot_be_backed_up_so_is_told(cli: Callable[..., Any], desk: Path) -> None:
    assert cli("backup", "kept.sqlite3").code == 0
    again = cli("backup", "kept.sqlite3")
    assert again.code == 2
    assert "--force" in again.err
    assert cli("backup", "kept.sqlite3", "--force").code == 0
    assert cli("backup", "kept.sqlite3", "--force", "--keep", "2").code == 2
    assert cli("backup", str(desk / "flow.sqlite3"), "--force").code == 2
    assert cli("backup", "none/kept.sqlite3").code == 3


def test_there_is_nothing_to_back_up_before_the_first_use(cli: Callable[..., Any], desk: Path) -> None:
    done = cli("backup", "--json")
    assert done.code == 3
    assert done.data["error"]["code"] == "no_database"
    assert list(desk.iterdir()) == []


@pytest.mark.usefixtures("run_id")
def test_what_cannot_be_restored_so_is_told(cli: Callable[..., Any], desk: Path) -> None:
    (desk / "notes.txt").write_text("not a database")
    assert cli("restore", "notes.txt").code == 3
    missing = cli("restore", "missing.sqlite3", "--json")
    assert missing.code == 2
    assert missing.data["error"]["code"] == "invalid_arguments"
    assert cli("restore", "flow.sqlite3").code == 2
    assert cli("verify").code == 0


@pytest.mark.usefixtures("run_id")
def test_a_database_that_is_in_use_is_backed_up_and_not_replaced(cli: Callable[..., Any], desk: Path) -> None:
    async def meanwhile() -> None:
        async with FlowService(FlowSettings(database=desk / "flow.sqlite3", stop_grace_s=0.1), holder="a server"):
            assert (await anyio.to_thread.run_sync(lambda: cli("backup", "kept.sqlite3"))).code == 0
            refused = await anyio.to_thread.run_sync(lambda: cli("restore", "kept.sqlite3"))
            assert refused.code == 3
            assert "a server" in refused.err
            assert "End that server first" in refused.err

    anyio.run(meanwhile)
    assert cli("restore", "kept.sqlite3").code == 0
