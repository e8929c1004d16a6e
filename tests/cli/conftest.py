"""The command line called in this process, on a database of the test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contexten_server.cli.app import app


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Done]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, home and database."""
    for name in list(os.environ):
        if name.startswith("CONTEXTEN_FLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CONTEXTEN_FLOW_DATABASE", str(tmp_path / "flow.sqlite3"))
    return tmp_path


@pytest.fixture
def cli(desk: Path) -> Cli:
    """Call `contexten-flow` with arguments, and perhaps standard input."""

    def call(*arguments: str, stdin: str | None = None) -> Done:
        result = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="contexten-flow")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def flow_file(desk: Path) -> Callable[..., str]:
    """Write a definition of one stage with these tasks, and answer the file's name."""

    def write(*tasks: dict[str, Any], name: str = "flow.json", **fields: Any) -> str:
        definition = {"name": "Test", "stages": [{"name": "only", "tasks": list(tasks)}], **fields}
        (desk / name).write_text(json.dumps(definition), encoding="utf-8")
        return name

    return write
