"""`contexten-flow serve`: flags reach the server, refusals end with their exit code and leave standard output empty."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters


def _serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "contexten_server", "serve", *flags]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


async def _tools(desk: Path, flags: Sequence[str]) -> list[str]:
    command = ["-m", "contexten_server", "serve", "--db", str(desk / "flow.sqlite3"), *flags]
    with anyio.fail_after(60):
        async with Client(StdioServerParameters(command=sys.executable, args=command, cwd=desk)) as client:
            return [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.anyio
async def test_read_only_hides_the_tools_that_write(desk: Path) -> None:
    every, some = await _tools(desk, []), await _tools(desk, ["--read-only"])
    assert set(every) - set(some) == {"create_flow", "update_flow", "execute_flow", "control_flow", "set_strategy"}
    assert set(some) < set(every)


def test_the_end_of_input_ends_the_server_in_order(desk: Path) -> None:
    done = _serve("--db", "flow.sqlite3")
    assert (done.returncode, done.stdout) == (0, "")


def test_an_unknown_toolset_is_a_usage_error_that_names_the_known(desk: Path) -> None:
    done = _serve("--toolsets", "default,nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nope" in done.stderr
    assert "default" in done.stderr


def test_a_port_in_use_is_told(desk: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _serve("--transport", "http", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_cannot_be_used_is_told(desk: Path) -> None:
    (desk / "flow.sqlite3").write_bytes(b"no database" * 500)
    command = [sys.executable, "-m", "contexten_server", "serve", "--db", "flow.sqlite3"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert server.stdin is not None
        told = next(line for line in server.stderr if "cannot be opened" in line)
        server.stdin.close()  # until then it answers calls with the reason, and tries again
        told += server.stderr.read()
        assert server.stdout.read() == ""
    assert server.returncode == 3
    assert "not a database" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("flag", ["--transport=carrier-pigeon", "--port=99999", "--log-level=loud"])
def test_a_flag_with_a_wrong_value_is_a_usage_error(desk: Path, flag: str) -> None:
    done = _serve(flag)
    assert (done.returncode, done.stdout) == (2, "")
    assert flag.split("=", maxsplit=1)[0] in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_the_start_ends_it_in_order(desk: Path, number: signal.Signals) -> None:
    config = desk / "slow.toml"
    os.mkfifo(config)
    command = [sys.executable, "-m", "contexten_server", "serve"]
    environment = {**os.environ, "CONTEXTEN_FLOW_CONFIG": str(config)}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as server:
        with config.open("wb"):  # open as soon as the server reads
            server.send_signal(number)
            assert server.wait(60) == 0
        assert server.stdout is not None
        assert server.stdout.read() == b""


def test_a_thread_that_hangs_does_not_keep_a_server_that_has_ended(desk: Path) -> None:
    program = """
import threading
from contexten_server.cli.serve import _to_the_end

threading.Thread(target=threading.Event().wait).start()
raise SystemExit(_to_the_end(lambda: 3))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "did not end in time" in done.stderr
