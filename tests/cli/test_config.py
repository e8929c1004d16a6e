"""`contexten-flow config HOST` prints and merges what a host needs, and spoils nothing."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contexten_server.cli.host_entry import Host, host_file

TABLES = {
    "claude-desktop": "mcpServers",
    "claude-code": "mcpServers",
    "cursor": "mcpServers",
    "vscode": "servers",
    "codex": "mcp_servers",
}


@pytest.mark.parametrize("host", TABLES)
def test_the_printed_entry_starts_this_installation(cli: Callable[..., Any], host: str) -> None:
    done = cli("config", host)
    read = tomllib.loads if host == "codex" else json.loads
    entry = read(done.out)[TABLES[host]]["contexten-flow"]
    assert done.code == 0
    assert os.access(entry["command"], os.X_OK)
    assert entry["args"][-1] == "serve"


def test_a_database_given_is_named_by_its_absolute_path(cli: Callable[..., Any], desk: Path) -> None:
    entry = cli("config", "cursor", "--json", "--db", "mine.sqlite3").data["entry"]
    assert entry["args"][-2:] == ["--db", str(desk / "mine.sqlite3")]


@pytest.mark.parametrize("host", [host for host in TABLES if host != "codex"])
def test_writing_keeps_other_entries_and_a_backup(cli: Callable[..., Any], host: str) -> None:
    file = host_file(Host(host))
    before = {"theme": "dark", TABLES[host]: {"other": {"command": "x"}}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(before), encoding="utf-8")
    done = cli("config", host, "--write", "--json")
    after = json.loads(file.read_text(encoding="utf-8"))
    assert done.code == 0
    assert after["theme"] == "dark"
    assert after[TABLES[host]]["other"] == {"command": "x"}
    assert after[TABLES[host]]["contexten-flow"] == done.data["entry"]
    assert json.loads(Path(done.data["backup"]).read_text(encoding="utf-8")) == before


def test_a_file_that_is_not_there_is_made_without_a_backup(cli: Callable[..., Any], desk: Path) -> None:
    done = cli("config", "vscode", "--write", "--json")
    assert "backup" not in done.data
    assert "contexten-flow" in json.loads((desk / ".vscode" / "mcp.json").read_text(encoding="utf-8"))["servers"]


@pytest.mark.parametrize("host", TABLES)
def test_writing_what_is_there_already_touches_nothing(cli: Callable[..., Any], desk: Path, host: str) -> None:
    file = desk / "host-file"
    assert cli("config", host, "--write", "--file", str(file), "--json").data["written"] is True
    file.write_text(file.read_text(encoding="utf-8") + "\n\n", encoding="utf-8")
    before = file.read_bytes()
    done = cli("config", host, "--write", "--file", str(file))
    assert done.code == 0
    assert "nothing to change" in done.err
    assert cli("config", host, "--write", "--file", str(file), "--json").data["written"] is False
    assert file.read_bytes() == before
    assert [entry.name for entry in desk.iterdir()] == ["host-file"]


def test_an_older_backup_is_never_overwritten(cli: Callable[..., Any], desk: Path) -> None:
    file = desk / ".mcp.json"
    file.write_text('{"first": 1}', encoding="utf-8")
    cli("config", "claude-code", "--write")
    cli("config", "claude-code", "--write", "--name", "again")
    assert json.loads((desk / ".mcp.json.bak").read_text(encoding="utf-8")) == {"first": 1}
    assert "contexten-flow" in (desk / ".mcp.json.bak1").read_text(encoding="utf-8")
    assert set(json.loads(file.read_text(encoding="utf-8"))["mcpServers"]) == {"contexten-flow", "again"}


def test_comments_and_entries_of_codex_stay(cli: Callable[..., Any], desk: Path) -> None:
    file = desk / "config.toml"
    file.write_text('model = "o9" # mine\n\n[mcp_servers.other]\ncommand = "x" # keep\n', encoding="utf-8")
    assert cli("config", "codex", "--write", "--file", str(file)).code == 0
    text = file.read_text(encoding="utf-8")
    assert "# mine" in text
    assert "# keep" in text
    assert set(tomllib.loads(text)["mcp_servers"]) == {"other", "contexten-flow"}


@pytest.mark.parametrize("content", ['{"a": 1, // a comment\n}', "[1, 2]", '{"servers": []}', "\udcff"])
def test_a_file_that_cannot_be_merged_is_left_as_it_is(cli: Callable[..., Any], desk: Path, content: str) -> None:
    file = desk / "mcp.json"
    file.write_text(content, encoding="utf-8", errors="surrogateescape")
    before = file.read_bytes()
    done = cli("config", "vscode", "--write", "--file", str(file))
    assert done.code == 2
    assert "error: " in done.err
    assert file.read_bytes() == before
    assert [entry.name for entry in desk.iterdir()] == ["mcp.json"]


def test_a_link_stays_a_link_to_the_file_that_is_written(cli: Callable[..., Any], desk: Path) -> None:
    (desk / "real.json").write_text("{}", encoding="utf-8")
    (desk / "link.json").symlink_to(desk / "real.json")
    assert cli("config", "cursor", "--write", "--file", "link.json").code == 0
    assert (desk / "link.json").is_symlink()
    assert "contexten-flow" in (desk / "real.json").read_text(encoding="utf-8")


def test_an_unknown_host_is_a_usage_error_that_lists_the_known_ones(cli: Callable[..., Any]) -> None:
    done = cli("config", "emacs")
    assert done.code == 2
    assert "claude-desktop" in done.err
