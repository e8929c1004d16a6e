"""The file that names MCP servers: what is wrong with it is told, with the place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow.agents.mcp import McpServersError, read_servers
from contexten.extensions.flow.settings import FlowSettings, SettingsFileError

STDIO = {"command": "prog"}


def refusal(tmp_path: Path, text: str) -> McpServersError:
    file = tmp_path / "servers.json"
    file.write_text(text)
    with pytest.raises(McpServersError) as refused:
        read_servers(file)
    return refused.value


def test_the_common_format_and_our_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    servers: dict[str, Any] = {
        "files": {"type": "stdio", "command": "npx", "args": ["-y", "x"], "env": {"A": "b"}, "cwd": "/tmp"},
        "issues": {"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": "Bearer ${secret:T}"}},
        "ours": {**STDIO, "allow": ["get_*"], "timeout_s": 5, "connect_timeout_s": 3, "capacity": 2, "disabled": True},
    }
    file.write_text(json.dumps({"mcpServers": servers}))
    read = read_servers(file)
    assert list(read) == ["files", "issues", "ours"]
    assert read["files"].args == ("-y", "x")
    assert read["ours"].allow == ("get_*",)
    assert (read["ours"].timeout_s, read["ours"].capacity, read["ours"].disabled) == (5, 2, True)
    assert "secret:T" not in repr(read["issues"])


@pytest.mark.parametrize(
    ("entry", "path", "message"),
    [
        ({"comand": "x"}, "/mcpServers/s/comand", "'comand' is not known; did you mean 'command'?"),
        ({}, "/mcpServers/s", "give either command (a program to start) or url (streamable HTTP)"),
        ({**STDIO, "url": "http://x/"}, "/mcpServers/s", "give either command"),
        ({**STDIO, "headers": {}}, "/mcpServers/s", "headers does not go with command"),
        ({"url": "http://x/", "args": []}, "/mcpServers/s", "args does not go with url"),
        ({"url": "http://x/", "type": "sse"}, "/mcpServers/s/type", "use the server's streamable HTTP address"),
        ({"url": "http://x/", "type": "stdio"}, "/mcpServers/s", "type stdio does not go with url"),
        ({"url": "example.com"}, "/mcpServers/s/url", "a url is absolute"),
        ({"url": "http://me:pw@x/"}, "/mcpServers/s/url", "credentials do not belong into a url"),
        ({"url": "http://x/", "headers": {"a b": "c"}}, "/mcpServers/s/headers", "is not a header's name"),
        ({**STDIO, "env": {"T": "${TOKEN}"}}, "/mcpServers/s/env", "T holds ${TOKEN}, which nothing replaces here"),
        ({**STDIO, "timeout_s": 0}, "/mcpServers/s/timeout_s", "greater than 0"),
        ({**STDIO, "args": "-y"}, "/mcpServers/s/args", "a list of texts is expected"),
        (7, "/mcpServers/s", "valid dictionary"),
    ],
)
def test_a_wrong_entry_is_told_with_its_place(tmp_path: Path, entry: Any, path: str, message: str) -> None:
    error = refusal(tmp_path, json.dumps({"mcpServers": {"s": entry}}))
    places = [(issue.path, issue.message) for issue in error.issues]
    assert any(place == path and message in said for place, said in places), places


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is no JSON"),
        ("[]", 'expected an object {"mcpServers": {name: server}}'),
        ('{"mcpservers": {}}', "did you mean 'mcpServers' instead of 'mcpservers'?"),
        ('{"mcpServers": {}, "inputs": []}', "'inputs' is not known here"),
        ('{"mcpServers": {"a/b": {"command": "x"}}}', "a server's name is"),
        ('{"mcpServers": {"builtin": {"command": "x"}}}', "the name 'builtin' is that of the built-in tool agent"),
        ('{"mcpServers": {"strands-model": {"command": "x"}}}', "'strands-model' is that of an engine's agent"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "'a' is there twice"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text).message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(McpServersError, match="there is no such file"):
        read_servers(tmp_path / "none.json")


def test_values_of_headers_are_in_no_error(tmp_path: Path) -> None:
    entry = {"url": "http://x/", "headers": {"Authorization": "Bearer abc\nd"}, "nope": "hush"}
    error = refusal(tmp_path, json.dumps({"mcpServers": {"s": entry}}))
    assert "abc" not in json.dumps(error.as_dict())
    assert "hush" not in json.dumps(error.as_dict())


def test_a_file_in_the_working_directory_may_not_name_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contexten-flow.toml").write_text('mcp_servers = "evil.json"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsFileError, match="sets mcp_servers"):
        FlowSettings()


def test_the_library_imports_the_protocols_only_when_a_server_is_opened() -> None:
    code = (
        "import sys; from contexten.extensions.flow import FlowService; import contexten.extensions.flow.agents.mcp; "
        "sys.exit(any(name.partition('.')[0] in ('mcp', 'mcp_types', 'httpx2') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
