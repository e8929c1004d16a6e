"""list, status, logs, cancel, verify and doctor, with and without a server on the database."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

SUM = {"name": "sum", "required_tools": ["data_processor"], "parameters": {"data": [1, 2, 3], "query": "sum(@)"}}
LONG = {"name": "long", "type": "wait", "parameters": {"seconds": 600}}


@pytest.fixture
def done_run(cli: Callable[..., Any], flow_file: Callable[..., str]) -> dict[str, Any]:
    """A completed run on the database."""
    run: dict[str, Any] = cli("run", flow_file(SUM), "--json").data
    return run


@pytest.fixture
def busy(cli: Callable[..., Any], flow_file: Callable[..., str]) -> Iterator[str]:
    """The id of a run that another process drives: it waits for ten minutes unless it is cancelled."""
    command = [sys.executable, "-m", "contexten_server", "run", flow_file(LONG, name="long.json")]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            assert any("task.waiting" in line for line in process.stdout)
            (run,) = cli("list", "--runs", "--json").data["runs"]
            yield run["run_id"]
        finally:
            process.kill()


def test_there_is_nothing_to_list_before_the_first_use(cli: Callable[..., Any], desk: Path) -> None:
    assert cli("list", "--json").data == {"flows": []}
    assert cli("list", "--runs").code == 0
    assert list(desk.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_asking_for_a_run_without_a_database_says_how_to_make_one(cli: Callable[..., Any], command: str) -> None:
    done = cli(command, "run_x", "--json")
    assert done.code == 3
    assert done.data["error"]["code"] == "no_database"
    assert "contexten-flow run" in done.err


@pytest.mark.usefixtures("done_run")
@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_an_id_that_nothing_has_ends_with_1(cli: Callable[..., Any], command: str) -> None:
    done = cli(command, "run_nobody", "--json")
    assert done.code == 1
    assert done.data["error"]["code"] == "run_not_found"
    assert "run_nobody" in done.err


def test_flows_and_runs_are_listed(
    cli: Callable[..., Any], flow_file: Callable[..., str], done_run: dict[str, Any]
) -> None:
    (run,) = cli("list", "--runs", "--json").data["runs"]
    assert (run["run_id"], run["state"]) == (done_run["run_id"], "completed")
    assert done_run["run_id"] in cli("list", "--runs").out
    assert cli("list", "--runs", "--status", "failed", "--json").data["runs"] == []


def test_as_many_rows_as_are_offered_may_be_asked_for(cli: Callable[..., Any], done_run: dict[str, Any]) -> None:
    assert cli("list", "--runs", "--limit", "200").code == 0
    assert "200" in cli("list", "--limit", "201").err


def test_a_list_without_flows_points_to_the_runs(
    cli: Callable[..., Any], flow_file: Callable[..., str], done_run: dict[str, Any]
) -> None:
    assert "no saved flows; 1 run: `contexten-flow list --runs`" in cli("list").err
    cli("run", flow_file(SUM))
    assert "no saved flows; 2 runs: `contexten-flow list --runs`" in cli("list").err
    assert "no saved flows match" in cli("list", "--status", "failed").err


def test_runs_that_nothing_drives_are_said_not_to_move(cli: Callable[..., Any], busy: str) -> None:
    stuck = "no server runs on this database; nothing moves until one starts"
    assert stuck not in cli("list", "--runs").err + cli("status", busy).err
    _end_driver(cli)
    for done in (cli("list", "--runs"), cli("status", busy)):
        assert (done.out + done.err).count("no server runs") == 1
        assert stuck in done.err
    assert cli("cancel", busy).code == 0
    assert stuck not in cli("list", "--runs").err + cli("status", busy).err


def _end_driver(cli: Callable[..., Any]) -> None:
    """End the process that drives the database, and wait until it has let go."""
    (server,) = _check(cli("doctor", "--json"), "server")
    driver = psutil.Process(int(server["found"].rpartition("process ")[2].rstrip(")")))
    driver.kill()
    with suppress(psutil.NoSuchProcess):
        driver.wait(timeout=60)


def test_pages_follow_one_another(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    file = flow_file(SUM)
    made = {cli("run", file, "--json").data["run_id"] for _ in range(3)}
    first = cli("list", "--runs", "--limit", "2", "--json").data
    second = cli("list", "--runs", "--limit", "2", "--page", first["next_page"], "--json").data
    assert {run["run_id"] for run in first["runs"] + second["runs"]} == made
    assert "next_page" not in second


def test_status_shows_tasks_and_takes_a_flows_id(cli: Callable[..., Any], done_run: dict[str, Any]) -> None:
    by_run = cli("status", done_run["run_id"], "--json").data
    assert [(task["name"], task["state"]) for task in by_run["tasks"]] == [("sum", "completed")]
    assert cli("status", done_run["flow_id"], "--json").data["run_id"] == done_run["run_id"]
    assert "✓ completed" in cli("status", done_run["run_id"]).out


def test_outputs_are_printed_whole_and_alone(cli: Callable[..., Any], done_run: dict[str, Any]) -> None:
    assert cli("status", done_run["run_id"], "--output").data == {"sum": 6}
    assert cli("status", done_run["run_id"], "--output", "--task", "sum").data == 6
    assert cli("status", done_run["run_id"], "--output", "--task", "nobody").code == 1


def test_logs_print_the_journal_in_order(cli: Callable[..., Any], done_run: dict[str, Any]) -> None:
    events = [json.loads(line) for line in cli("logs", done_run["run_id"], "--json").out.splitlines()]
    types = [event["type"] for event in events]
    assert types.index("task.running") < types.index("task.completed") < types.index("run.completed")
    later = cli("logs", done_run["run_id"], "--json", "--since", events[-2]["cursor"]).out.splitlines()
    assert [json.loads(line) for line in later] == events[-1:]


def test_following_ends_with_the_run(cli: Callable[..., Any], done_run: dict[str, Any]) -> None:
    assert "run.completed" in cli("logs", done_run["run_id"], "--follow").out


def test_following_a_run_that_nothing_drives_says_so(cli: Callable[..., Any], busy: str) -> None:
    _end_driver(cli)
    command = [sys.executable, "-m", "contexten_server", "logs", busy, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any("no server runs on this database" in line for line in process.stderr)
        finally:
            process.kill()


def test_a_journal_that_agrees_is_verified(cli: Callable[..., Any], done_run: dict[str, Any]) -> None:
    done = cli("verify", "--json")
    assert (done.code, done.data["ok"], done.data["runs"]) == (0, True, 1)


def test_a_state_that_the_journal_does_not_tell_is_a_problem(
    cli: Callable[..., Any], desk: Path, done_run: dict[str, Any]
) -> None:
    database = sqlite3.connect(desk / "flow.sqlite3")
    with database:
        database.execute("UPDATE runs SET state = 'cancelled'")
    database.close()
    done = cli("verify", "--json")
    assert (done.code, done.data["ok"]) == (1, False)
    assert done_run["run_id"] in json.dumps(done.data["problems"])


def test_questions_are_answered_while_another_process_drives(
    cli: Callable[..., Any], flow_file: Callable[..., str], busy: str
) -> None:
    assert [run["run_id"] for run in cli("list", "--runs", "--json").data["runs"]] == [busy]
    assert cli("status", busy, "--json").data["state"] in {"running", "waiting"}
    assert "task.waiting" in cli("logs", busy).out
    assert cli("validate", flow_file(SUM)).code == 0
    assert cli("verify").code == 0


def test_a_run_is_executed_beside_a_server_on_the_same_database(
    cli: Callable[..., Any], flow_file: Callable[..., str], busy: str
) -> None:
    done = cli("run", flow_file(SUM), "--json")
    assert (done.code, done.data["state"], done.data["output"]) == (0, "completed", {"sum": 6})
    assert cli("status", busy, "--json").data["state"] in {"running", "waiting"}


def test_a_cancellation_asked_from_outside_reaches_the_driver(cli: Callable[..., Any], busy: str) -> None:
    assert cli("cancel", busy, "--reason", "enough").code == 0
    assert "run.cancelled" in cli("logs", busy, "--follow").out
    assert cli("status", busy, "--json").data["reason"] == "enough"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"this is not a database, " * 100, "store_corrupt"), (b"SQLite format 3\0junk" * 50, "store_corrupt")],
)
def test_a_file_that_is_no_database_ends_with_3(cli: Callable[..., Any], desk: Path, content: bytes, code: str) -> None:
    (desk / "flow.sqlite3").write_bytes(content)
    done = cli("list", "--json")
    assert (done.code, done.data["error"]["code"]) == (3, code)
    assert "Traceback" not in done.err
    assert "`contexten-flow verify`" in done.data["error"]["next"]
    assert "verify" not in cli("verify", "--json").data["error"]["next"]  # no command names itself as the next step


@pytest.mark.parametrize(
    "variable",
    [f"CONTEXTEN_FLOW_{name}" for name in ("DURABILITY", "MAX_CONCURRENT_FLOWS", "SECRETS", "STRATEGY", "TAG_LIMITS")],
)
def test_a_setting_that_is_wrong_is_named(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1-no")
    done = cli("list")
    assert done.code == 2
    assert variable in done.err


def test_a_settings_file_that_is_not_toml_is_told(cli: Callable[..., Any], desk: Path) -> None:
    (desk / "contexten-flow.toml").write_text("= 1", encoding="utf-8")
    done = cli("verify")
    assert done.code == 2
    assert "contexten-flow.toml" in done.err


def _check(done: Any, name: str) -> list[dict[str, str]]:
    return [check for check in done.data["checks"] if check["check"] == name]


def test_doctor_finds_no_problem_on_a_fresh_machine(cli: Callable[..., Any]) -> None:
    done = cli("doctor", "--json")
    assert (done.code, done.data["ok"]) == (0, True)
    assert "http_client" in _check(done, "tools")[0]["found"]


def test_doctor_names_an_allowed_folder_that_is_not_there(
    cli: Callable[..., Any], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_ALLOW_PATHS", f"{desk},{desk / 'missing'}")
    (finding,) = [check for check in cli("doctor", "--json").data["checks"] if check["check"] == "folders"]
    assert (finding["level"], "missing" in finding["found"]) == ("note", True)


def test_doctor_never_shows_a_secrets_value(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_SECRETS", "KNOWN@api.example.com,MISSING")
    monkeypatch.setenv("KNOWN", "hunter2hunter2")
    done = cli("doctor", "--json")
    known, missing = _check(done, "secrets")
    assert "hunter2" not in done.out + cli("doctor").out
    assert "KNOWN is set" in known["found"]
    assert "MISSING is not set" in missing["found"]


def test_doctor_names_the_processes_that_drive(cli: Callable[..., Any], busy: str) -> None:
    done = cli("doctor", "--json")
    assert done.code == 0
    assert "driven by contexten-flow run" in _check(done, "server")[0]["found"]


def test_doctor_reports_a_damaged_database_and_wrong_settings(
    cli: Callable[..., Any], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "flow.sqlite3").write_bytes(b"no database" * 100)
    done = cli("doctor", "--json")
    assert done.code == 1
    (finding,) = _check(done, "database")
    assert finding["level"] == "problem"
    assert str(desk / "flow.sqlite3") in finding["found"]
    monkeypatch.setenv("CONTEXTEN_FLOW_LEASE_TTL_S", "-1")
    assert _check(cli("doctor", "--json"), "settings")[0]["level"] == "problem"


def test_doctor_tells_of_a_port_that_is_taken(cli: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = cli("doctor", "--json", "--port", str(taken.getsockname()[1]))
    assert _check(done, "port")[0]["level"] == "note"
