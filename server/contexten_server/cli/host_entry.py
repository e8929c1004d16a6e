"""Where each host keeps its MCP servers, how an entry looks there, and how it is merged without touching others."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from contexten_server.cli.exits import UsageProblem


class Host(StrEnum):
    """The programs whose configuration is known."""

    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_CODE = "claude-code"
    CURSOR = "cursor"
    VSCODE = "vscode"
    CODEX = "codex"


_TABLES = {
    Host.CLAUDE_DESKTOP: "mcpServers",
    Host.CLAUDE_CODE: "mcpServers",
    Host.CURSOR: "mcpServers",
    Host.VSCODE: "servers",
    Host.CODEX: "mcp_servers",
}

_NAME_THEIR_TRANSPORT = frozenset({Host.CLAUDE_CODE, Host.VSCODE})


def server_command() -> tuple[str, list[str]]:
    """The absolute command, and its first arguments, that starts this very installation."""
    folder = Path(sys.executable).absolute().parent
    for name in ("contexten-flow", "contexten-flow.exe"):
        if (folder / name).is_file():
            return str(folder / name), []
    return str(Path(sys.executable).absolute()), ["-m", "contexten_server"]


def server_entry(host: Host, db: Path | None) -> dict[str, Any]:
    """The entry under the server's name, as data."""
    command, arguments = server_command()
    arguments = [*arguments, "serve"]
    if db is not None:
        arguments += ["--db", str(db.expanduser().absolute())]
    entry: dict[str, Any] = {"command": command, "args": arguments}
    return {"type": "stdio", **entry} if host in _NAME_THEIR_TRANSPORT else entry


def host_file(host: Host) -> Path:
    """The file in which the host looks: the user's for Claude Desktop, Cursor and Codex, else this folder's."""
    if host is Host.CLAUDE_CODE:
        return Path.cwd() / ".mcp.json"
    if host is Host.VSCODE:
        return Path.cwd() / ".vscode" / "mcp.json"
    if host is Host.CURSOR:
        return Path.home() / ".cursor" / "mcp.json"
    if host is Host.CODEX:
        return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "config.toml"
    return _claude_desktop_folder() / "claude_desktop_config.json"


def _claude_desktop_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Claude"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "Claude"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "Claude"


def entry_text(host: Host, name: str, entry: dict[str, Any]) -> str:
    """The entry as it stands in the host's file."""
    if host is Host.CODEX:
        import tomlkit

        return tomlkit.dumps({_TABLES[host]: {name: entry}})
    return json.dumps({_TABLES[host]: {name: entry}}, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of a host's file."""

    has_changed: bool
    backup: Path | None = None
    """The file as it was before, where there was one and it was changed."""


def merge_into(host: Host, file: Path, name: str, entry: dict[str, Any]) -> Merged:
    """Write the entry into the host's file, beside what is there; a file that has it already is not touched.

    A file that cannot be read as what it should be is left alone: UsageProblem.
    """
    before = _read(file)
    document = _parse(host, file, before)
    servers = document.setdefault(_TABLES[host], {})
    if not isinstance(servers, MutableMapping):
        raise UsageProblem(f"{_TABLES[host]} in {file} is not a table; the file was left as it is")
    if name in servers and servers[name] == entry:
        return Merged(has_changed=False)
    servers[name] = entry
    if host is Host.CODEX:
        import tomlkit

        text = tomlkit.dumps(document)
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        backup = _keep(file) if before else None
        _replace(file, text)
    except OSError as error:
        raise UsageProblem(f"{file} cannot be written: {error.strerror}") from None
    return Merged(has_changed=True, backup=backup)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{file} cannot be read: {error}") from None


def _parse(host: Host, file: Path, text: str) -> MutableMapping[str, Any]:
    advice = f"the file was left as it is; `contexten-flow config {host.value}` prints the entry to paste"
    if host is Host.CODEX:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError

        try:
            return tomlkit.parse(text)
        except TOMLKitError as error:
            raise UsageProblem(f"{file} is not TOML: {error}", next=advice) from None
    try:
        document = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UsageProblem(f"{file} is not plain JSON (it may have comments): {error}", next=advice) from None
    if not isinstance(document, dict):
        raise UsageProblem(f"{file} holds no JSON object", next=advice)
    return document


def _keep(file: Path) -> Path:
    """Copy the file beside itself under a name that is free."""
    number = 0
    while (backup := file.with_name(f"{file.name}.bak{number or ''}")).exists():
        number += 1
    shutil.copy2(file, backup)
    return backup


def _replace(file: Path, text: str) -> None:
    """Put the text in place in one step, so that the host never reads half a file; a link stays a link."""
    target = file.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        fresh.write_text(text, encoding="utf-8")
        if target.exists():
            shutil.copymode(target, fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
