"""The command line starts fast and tells of itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest


def test_the_server_is_reached_without_loading_what_only_terminals_need() -> None:
    code = (
        "import sys, contexten_server.cli.app;"
        "print(sorted({'rich', 'tomlkit', 'mcp', 'httpx', 'uvicorn', 'pydantic_settings', 'aiosqlite'}"
        " & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_version_is_the_distributions(cli: Callable[..., Any]) -> None:
    assert cli("--version").out == "contexten-flow 0.1.0\n"


def test_only_commands_that_exist_are_advertised(cli: Callable[..., Any]) -> None:
    told = cli("--help").out.split("Commands:")[1]
    commands = [line.split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] != " "]
    expected = [
        "serve",
        "run",
        "validate",
        "save",
        "list",
        "status",
        "logs",
        "cancel",
        "stats",
        "export",
        "strategy",
        "simulate",
        "worker",
        "publish",
        "backup",
        "restore",
        "verify",
        "doctor",
        "config",
        "demo",
        "trigger",
        "notify",
    ]
    assert commands == expected


@pytest.mark.parametrize(
    "command", ["run", "validate", "save", "list", "status", "logs", "cancel", "simulate", "verify", "doctor", "demo"]
)
def test_every_command_tells_its_exit_codes_and_offers_json(cli: Callable[..., Any], command: str) -> None:
    told = cli(command, "--help").out
    assert "Exit codes:" in told
    assert "--json" in told


def test_an_unknown_command_is_a_usage_error_without_a_stack(cli: Callable[..., Any]) -> None:
    done = cli("nonsense")
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.parametrize("word", ["create", "add"])
def test_what_others_call_saving_is_suggested_by_its_name_here(cli: Callable[..., Any], word: str) -> None:
    done = cli(word, "flow.json")
    assert done.code == 2
    assert "Did you mean 'save'?" in done.err


def test_completion_is_offered_for_the_shell(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = cli("--show-completion", "bash")
    assert done.code == 0
    assert "complete" in done.out
