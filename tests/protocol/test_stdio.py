"""A server process over standard input and output: nothing but JSON-RPC on its standard output, and an orderly end."""

import contextlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from .conftest import assert_nothing_ignored

COMMAND = [sys.executable, "-m", "contexten_server", "serve"]
VALUE = {
    "stages": [
        {
            "name": "main",
            "tasks": [
                {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": [1], "query": "@"}}
            ],
        }
    ]
}
LONG = {"stages": [{"name": "main", "tasks": [{"name": "long", "type": "wait", "parameters": {"seconds": 3600}}]}]}


@dataclass
class Raw:
    """A server process spoken to line by line."""

    process: subprocess.Popen[bytes]
    said: list[dict[str, Any]] = field(default_factory=list)
    last_id: int = 0

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next line, which must be JSON-RPC."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server ended"
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        self.said.append(message)
        return message

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and answer its response."""
        self.last_id += 1
        self.send({"id": self.last_id, "method": method, "params": params or {}})
        while True:
            message = self.hear()
            if message.get("id") == self.last_id:
                return message

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured answer of a tool."""
        answer: dict[str, Any] = self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]
        return answer["structuredContent"]  # type: ignore[no-any-return]  # JSON

    def initialize(self) -> None:
        client = {"name": "raw", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self.send({"method": "notifications/initialized"})

    def end(self) -> int:
        """Close its input; its exit code. It has five seconds, and more where the machine is loaded."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


@pytest.fixture
def start(environment: Callable[..., dict[str, str]], tmp_path: Path) -> Iterator[Callable[..., Raw]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, stderr: int | None = None, **settings: str) -> Raw:
        with (tmp_path / f"{len(started)}.stderr").open("wb") as told:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env=environment(**settings),
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told if stderr is None else stderr,
            )
        started.append(process)
        return Raw(process)

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    for told in tmp_path.glob("*.stderr"):
        assert_nothing_ignored(told.read_text(encoding="utf-8", errors="replace"))


def test_every_line_of_standard_output_is_json_rpc_whatever_prints(start: Callable[..., Raw], tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import os, subprocess, sys\n"
        "print('printed while it is imported')\n"
        "def shout():\n"
        "    print('printed')\n"
        "    sys.stdout.flush()\n"
        "    os.write(1, b'written to descriptor 1\\n')\n"
        "    subprocess.run([sys.executable, '-c', 'print(\"a child prints\")'])\n"
        "    return 'done'\n"
    )
    raw = start(PYTHONPATH=str(tmp_path), ALLOW_FUNCTIONS="noisy:shout", LOG_LEVEL="DEBUG")
    raw.initialize()
    task = {"name": "t", "required_tools": ["python"], "parameters": {"function": "noisy:shout"}}
    run = raw.call("execute_flow", workflow_def={"stages": [{"name": "s", "tasks": [task]}]}, wait_s=20)
    assert run["output"] == {"t": "done"}
    assert len(raw.ask("tools/list")["result"]["tools"]) == 12
    assert raw.end() == 0
    assert raw.process.stdout is not None
    assert raw.process.stdout.read() == b""


def test_lines_that_are_no_json_are_answered_or_dropped_and_the_server_goes_on(start: Callable[..., Raw]) -> None:
    raw = start()
    raw.initialize()
    assert raw.process.stdin is not None
    raw.process.stdin.write(b'not json\n{"jsonrpc": "2.0"}\n\n\xff\xfe\n[]\n{"a":' + b"[" * 5000 + b"\n")
    raw.process.stdin.flush()
    assert raw.call("list_flows")["flows"] == []


def test_a_very_long_line_is_read(start: Callable[..., Raw]) -> None:
    raw = start()
    raw.initialize()
    task = {
        "name": "t",
        "required_tools": ["data_processor"],
        "parameters": {"data": "x" * 900_000, "query": "length(@)"},
    }
    run = raw.call("execute_flow", workflow_def={"stages": [{"name": "s", "tasks": [task]}]}, wait_s=20)
    assert run["output"] == {"t": 900_000}


def test_the_end_of_input_ends_the_process_with_code_0_though_a_run_is_under_way(start: Callable[..., Raw]) -> None:
    raw = start()
    raw.initialize()
    assert raw.call("execute_flow", workflow_def=LONG)["run_id"]
    assert raw.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_code_0_though_a_call_waits(start: Callable[..., Raw], number: int) -> None:
    raw = start()
    raw.initialize()
    run_id = raw.call("execute_flow", workflow_def=LONG)["run_id"]
    raw.send({"id": 99, "method": "tools/call", "params": {"name": "wait_for_flow", "arguments": {"run_id": run_id}}})
    raw.ask("ping")
    raw.process.send_signal(number)
    assert raw.process.wait(30) == 0


def test_a_client_that_stops_reading_does_not_keep_the_process_alive(start: Callable[..., Raw]) -> None:
    raw = start()
    raw.initialize()
    for number in range(300):  # more than a pipe holds, and nobody reads
        raw.send({"id": 1000 + number, "method": "tools/list", "params": {}})
    raw.process.send_signal(signal.SIGTERM)
    assert raw.process.wait(30) == 0


def test_runs_go_on_at_the_next_start(start: Callable[..., Raw]) -> None:
    first = start()
    first.initialize()
    pause = {"name": "pause", "type": "wait", "parameters": {"seconds": 1}}
    definition = {"stages": [{"name": "main", "tasks": [pause, VALUE["stages"][0]["tasks"][0]]}]}
    run_id = first.call("execute_flow", workflow_def=definition)["run_id"]
    assert first.end() == 0
    second = start()
    second.initialize()
    assert second.call("wait_for_flow", run_id=run_id, timeout_s=20)["state"] == "completed"


def test_a_run_goes_on_in_a_second_server_on_the_database_when_the_first_one_ends(start: Callable[..., Raw]) -> None:
    definition = {"stages": [{"name": "s", "tasks": [{"name": "w", "type": "wait", "parameters": {"seconds": 0.5}}]}]}
    first, second = start(), start()
    for server in (first, second):
        server.initialize()
        server.call("list_flows")  # it is open now
    pids = {server["pid"] for server in second.call("get_metrics")["scheduler"]["servers"]}
    assert pids == {first.process.pid, second.process.pid}
    run_id = first.call("execute_flow", workflow_def=definition)["run_id"]
    assert first.end() == 0
    assert second.call("wait_for_flow", run_id=run_id, timeout_s=20)["state"] == "completed"
    assert second.end() == 0


def _garbage(database: Path) -> None:
    database.write_text("this is no database, whatever its name says" * 100)


def _another_programs(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
        connection.commit()


def _folder(database: Path) -> None:
    database.mkdir()


UNUSABLE = [(_garbage, "store_corrupt"), (_another_programs, "store_corrupt"), (_folder, "store_error")]


@pytest.mark.parametrize(("make", "code"), UNUSABLE)
def test_a_database_that_cannot_be_used_is_told_by_each_call_and_by_the_exit_code(
    start: Callable[..., Raw], tmp_path: Path, make: Callable[[Path], None], code: str
) -> None:
    make(tmp_path / "flow.sqlite3")
    raw = start(stderr=subprocess.PIPE)
    raw.initialize()
    for _ in range(2):
        error = raw.call("execute_flow", workflow_def=VALUE)["error"]
        assert error["code"] == code
        assert error["next"]
        assert str(tmp_path) not in error["message"]
    read = raw.ask("resources/read", {"uri": "flow://flows"})
    assert code in read["error"]["message"]
    assert raw.end() == 3
    assert raw.process.stderr is not None
    said = raw.process.stderr.read().decode()
    assert error["message"] in said
    assert "Traceback" not in said


def test_a_database_that_was_mended_is_opened_by_a_later_call(start: Callable[..., Raw], tmp_path: Path) -> None:
    database = tmp_path / "flow.sqlite3"
    _garbage(database)
    raw = start()
    raw.initialize()
    assert raw.call("list_flows")["error"]["code"] == "store_corrupt"
    database.unlink()
    while "error" in (answer := raw.call("list_flows")):
        assert answer["error"]["code"] == "store_corrupt"
    assert answer["flows"] == []
    assert raw.call("execute_flow", workflow_def=VALUE, wait_s=20)["state"] == "completed"
    assert raw.end() == 0


@pytest.mark.parametrize("speaks", [False, True])
def test_without_a_call_the_exit_code_at_the_end_of_input_tells_of_the_database(
    start: Callable[..., Raw], tmp_path: Path, speaks: bool
) -> None:
    _garbage(tmp_path / "flow.sqlite3")
    raw = start(stderr=subprocess.PIPE)
    if speaks:
        raw.initialize()
        raw.ask("tools/list")
    assert raw.process.stdin is not None
    raw.process.stdin.close()
    assert raw.process.wait(60) == 3
    assert raw.process.stderr is not None
    said = raw.process.stderr.read().decode()
    assert "contexten-flow: The database file is damaged or is not a database." in said
    assert "Traceback" not in said
    assert raw.process.stdout is not None
    assert speaks or raw.process.stdout.read() == b""


def test_a_start_over_http_on_a_database_that_cannot_be_used_ends_with_code_3(
    start: Callable[..., Raw], tmp_path: Path
) -> None:
    _garbage(tmp_path / "flow.sqlite3")
    server = start("--transport", "http", "--port", "0", stderr=subprocess.PIPE)
    assert server.process.wait(60) == 3
    assert server.process.stderr is not None
    assert "damaged or is not a database" in server.process.stderr.read().decode()


def test_each_line_with_an_id_is_answered_though_the_protocols_reader_cannot_read_it(
    start: Callable[..., Raw],
) -> None:
    raw = start()
    raw.initialize()
    assert raw.process.stdin is not None
    call = '{"jsonrpc": "2.0", "id": %s, "method": "tools/call", "params": {"name": "list_flows", "arguments": %s}}'
    deep = "[" * 20_000 + "]" * 20_000
    for line in (call % (71, '{"tag": "\\ud800"}'), call % (72, f'{{"tag": {deep}}}'), "not json", "[]"):
        raw.process.stdin.write(line.encode() + b"\n")
    raw.process.stdin.flush()
    answers = [raw.hear() for _ in range(4)]
    assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [
        (71, -32700),
        (72, -32700),
        (None, -32700),
        (None, -32600),
    ]
    assert raw.call("list_flows")["flows"] == []


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e400"])
def test_a_number_that_json_has_no_word_for_is_refused_with_its_place(start: Callable[..., Raw], value: str) -> None:
    raw = start()
    raw.initialize()
    assert raw.process.stdin is not None
    params = f'{{"name": "execute_flow", "arguments": {{"flow_id": "f", "wait_s": {value}}}}}'
    line = f'{{"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {params}}}'
    raw.process.stdin.write(line.encode() + b"\n")
    raw.process.stdin.flush()
    error = raw.hear()["result"]["structuredContent"]["error"]
    assert error["code"] == "invalid_arguments"
    assert error["issues"][0]["path"] == "/wait_s"
    assert isinstance(error["issues"][0]["got"], str)


def test_an_unknown_toolset_is_refused_with_those_that_exist(start: Callable[..., Raw]) -> None:
    raw = start("--toolsets", "default,trigers", stderr=subprocess.PIPE)
    assert raw.process.wait(60) == 2
    assert raw.process.stderr is not None
    said = raw.process.stderr.read().decode()
    assert "unknown: trigers" in said
    assert "default, history, triggers, notifications" in said
    assert "Traceback" not in said


def test_read_only_lists_seven_tools(start: Callable[..., Raw]) -> None:
    raw = start("--read-only")
    raw.initialize()
    assert len(raw.ask("tools/list")["result"]["tools"]) == 7


@pytest.mark.anyio
async def test_the_sdk_client_of_each_era_works(environment: Callable[..., dict[str, str]], era: str) -> None:
    parameters = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment())
    mode = "legacy" if era == "legacy" else "auto"
    with anyio.fail_after(30):
        async with Client(parameters, mode=mode) as client:
            run = await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            assert run.structured_content["output"] == {"value": [1]}
            run_id = run.structured_content["run_id"]
            events = await client.call_tool("get_flow_status", {"run_id": run_id, "detail": "events"})
            actors = {event["actor"] for event in events.structured_content["events"] if "actor" in event}
            assert actors == {"mcp/stdio/execute_flow"}


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is not its child")
def test_a_killed_client_leaves_no_server_behind(environment: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    """The server's input ends when its client dies, whatever it dies of."""
    script = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen({COMMAND!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
        'p.stdin.write(b\'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n\'); p.stdin.flush(); p.stdout.readline()\n'
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    client = subprocess.Popen([sys.executable, "-c", script], env=environment(), cwd=tmp_path, stdout=subprocess.PIPE)
    assert client.stdout is not None
    pid = int(client.stdout.readline())
    client.kill()
    client.wait()
    client.stdout.close()
    try:
        server = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # it has ended already
    try:
        ended, _, _ = select.select([server], [], [], 30)
        assert ended, "the server outlived its client"
    finally:
        os.close(server)
