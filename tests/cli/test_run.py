"""`contexten-flow run` and `validate`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUM = {"name": "sum", "required_tools": ["data_processor"], "parameters": {"data": [1, 2, 3], "query": "sum(@)"}}
BAD_QUERY = {"name": "bad", "required_tools": ["data_processor"], "parameters": {"data": "x", "query": "sum(@)"}}


def test_a_completed_run_ends_with_0_and_its_output(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    done = cli("run", flow_file(SUM), "--json")
    assert (done.code, done.data["state"], done.data["output"]) == (0, "completed", {"sum": 6})


def test_a_failed_run_ends_with_1_and_says_why(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    done = cli("run", flow_file(BAD_QUERY))
    assert done.code == 1
    assert "bad" in done.out
    assert "invalid" in done.out
    assert "Traceback" not in done.out + done.err


def test_progress_is_plain_lines_where_there_is_no_terminal(
    cli: Callable[..., Any], flow_file: Callable[..., str]
) -> None:
    lines = cli("run", flow_file(SUM)).out.splitlines()
    assert any("task.completed" in line and "sum" in line for line in lines)
    assert any("run.completed" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_definition_and_inputs_come_from_standard_input_and_a_file(cli: Callable[..., Any], desk: Path) -> None:
    task = {
        "name": "t",
        "required_tools": ["data_processor"],
        "parameters": {"data": "{{ inputs.xs }}", "query": "max(@)"},
    }
    definition = {"name": "Max", "inputs": {"type": "object"}, "stages": [{"name": "s", "tasks": [task]}]}
    (desk / "inputs.json").write_text('{"xs": [3, 9, 4]}', encoding="utf-8")
    done = cli("run", "-", "--inputs", "@inputs.json", "--json", stdin=json.dumps(definition))
    assert done.data["output"] == {"t": 9}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name": "x",\n  "stages": [}', "line 2, column 14"),
        ("", "line 1, column 1"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(cli: Callable[..., Any], text: str, told: str) -> None:
    done = cli("run", "-", stdin=text)
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize("inputs", ["{", "[1]", "@nowhere.json"])
def test_inputs_that_cannot_be_read_are_a_usage_error(
    cli: Callable[..., Any], flow_file: Callable[..., str], inputs: str
) -> None:
    done = cli("run", flow_file(SUM), "--inputs", inputs)
    assert done.code == 2
    assert done.err.startswith("error: ")


def test_an_invalid_definition_is_refused_with_every_problem(
    cli: Callable[..., Any], flow_file: Callable[..., str]
) -> None:
    file = flow_file({"name": "a", "required_tols": []}, {"name": "b", "depends_on": ["nobody"]})
    done = cli("run", file, "--json")
    assert done.code == 1
    assert done.data["error"]["code"] == "invalid_definition"
    assert len(done.data["error"]["issues"]) >= 2
    assert "/stages/0/tasks/0" in done.err


def test_validate_tells_the_plan_of_a_valid_definition_and_saves_nothing(
    cli: Callable[..., Any], flow_file: Callable[..., str], desk: Path
) -> None:
    done = cli("validate", flow_file(SUM), "--json")
    assert (done.code, done.data["valid"], done.data["plan"]["tasks"]) == (0, True, 1)
    assert not (desk / "flow.sqlite3").exists()


def test_a_file_with_a_key_twice_is_refused_with_its_place(cli: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "twice.json"
    file.write_text('{"stages": [{"name": "s", "tasks": [{"name": "a", "name": "b"}]}]}')
    done = cli("validate", str(file))
    assert done.code == 2
    assert "/stages/0/tasks/0/name" in done.err


def test_validate_shows_place_message_and_suggestion(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    done = cli("validate", flow_file({**SUM, "required_tools": ["data_procesor"]}))
    assert done.code == 1
    assert "/stages/0/tasks/0/required_tools/0" in done.err
    assert "data_processor" in done.err


def test_fix_writes_the_mended_definition(cli: Callable[..., Any], flow_file: Callable[..., str], desk: Path) -> None:
    file = flow_file({**SUM, "name": "my sum", "required_tools": ["data_procesor"]})
    assert cli("validate", file, "--fix").code == 0
    assert cli("validate", file).code == 0
    mended = json.loads((desk / file).read_text(encoding="utf-8"))
    assert mended["stages"][0]["tasks"][0]["required_tools"] == ["data_processor"]


def test_fix_prints_instead_of_writing_when_asked(
    cli: Callable[..., Any], flow_file: Callable[..., str], desk: Path
) -> None:
    file = flow_file({**SUM, "required_tools": ["data_procesor"]})
    before = (desk / file).read_text(encoding="utf-8")
    done = cli("validate", file, "--fix", "--stdout")
    assert done.data["stages"][0]["tasks"][0]["required_tools"] == ["data_processor"]
    assert (desk / file).read_text(encoding="utf-8") == before


def test_fix_takes_no_dependency_away(cli: Callable[..., Any], flow_file: Callable[..., str], desk: Path) -> None:
    file = flow_file({**SUM, "depends_on": ["nobody"]})
    before = (desk / file).read_text(encoding="utf-8")
    assert cli("validate", file, "--fix").code == 1
    assert (desk / file).read_text(encoding="utf-8") == before


def test_what_no_patch_mends_is_left_and_told(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    cycle = [{**SUM, "name": "a", "depends_on": ["b"]}, {**SUM, "name": "b", "depends_on": ["a"]}]
    done = cli("validate", flow_file(*cycle), "--fix", "--json")
    assert done.code == 1
    assert done.data["issues"]


def _spawn(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "contexten_server", *arguments]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def _read_until(stream: Any, word: str) -> str:
    for line in stream:
        if word in line:
            return str(line)
    raise AssertionError(f"{word} never came")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
def test_ctrl_c_stops_the_process_and_the_run_goes_on_with_the_next(
    cli: Callable[..., Any], flow_file: Callable[..., str]
) -> None:
    wait = {"name": "pause", "type": "wait", "parameters": {"seconds": 5}}
    file = flow_file({**SUM, "name": "first"}, wait, {**SUM, "name": "last"})
    with _spawn("run", file) as process:
        _read_until(process.stdout, "first")
        _read_until(process.stdout, "task.waiting")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    (run,) = cli("list", "--runs", "--json").data["runs"]
    assert run["run_id"] in told
    assert run["state"] not in {"completed", "failed", "cancelled"}
    other = flow_file({**SUM, "name": "other"}, {**wait, "parameters": {"seconds": 600}}, name="b.json")
    with _spawn("run", other) as next_one:
        assert "run.completed" in cli("logs", run["run_id"], "--follow").out
        next_one.send_signal(signal.SIGINT)
        next_one.communicate(timeout=60)
    assert cli("status", run["run_id"], "--json").data["state"] == "completed"
    attempts = {task["name"]: task["attempts"] for task in cli("status", run["run_id"], "--json").data["tasks"]}
    assert attempts["first"] == 1


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_terminal_shows_a_live_table(desk: Path, flow_file: Callable[..., str]) -> None:
    import pty

    file = flow_file(SUM, {"name": "rest", "type": "wait", "parameters": {"seconds": 2}})
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "contexten_server", "run", file]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.STDOUT, env=env) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # Linux reports the end of a pseudo-terminal so
            pass
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "waiting" in text
    assert "2/2 tasks" in text
