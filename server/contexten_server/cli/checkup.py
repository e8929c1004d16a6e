"""What doctor looks at: each check is a function that answers findings."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contexten.extensions.flow.errors import FlowError
from contexten_server.cli.conduct import load_settings
from contexten_server.cli.exits import UsageProblem
from contexten_server.cli.setting_sources import files_text, variable_warnings

if TYPE_CHECKING:
    from contexten.extensions.flow.settings import FlowSettings

_LITTLE_SPACE = 500 << 20
"""Below this the journal of a busy day may not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. A note is worth knowing; a problem stops something from working."""

    check: str
    level: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""

    def data(self) -> dict[str, str]:
        """The finding as JSON data, without empty advice."""
        return {name: value for name, value in asdict(self).items() if value}


async def examine(db: Path | None, host: str, port: int) -> list[Finding]:
    """All findings, in the order in which a person reads them. Raises nothing that a finding can tell."""
    findings = [_python(), _sqlite()]
    try:
        settings = load_settings(db, warn=False)
    except UsageProblem as error:
        return [*findings, *_variables(), _wrong_settings(error)]
    findings += _sources()
    findings += _one_verdict([*_database(settings), *await _service(settings)])
    findings += _folders(settings)
    findings += _secrets(settings)
    findings += await _authentication(settings)
    findings.append(_port(host, port))
    return findings


def _wrong_settings(error: UsageProblem) -> Finding:
    wrong = [f"{issue.path.removeprefix('/')}: {issue.message}" for issue in error.issues]
    return Finding(check="settings", level="problem", found="; ".join(wrong) or error.message, advice=error.next or "")


def _sources() -> Iterator[Finding]:
    from contexten.extensions.flow.settings import settings_files, user_settings_file

    files = settings_files()
    advice = "" if files else f"one of your own would be {user_settings_file()}"
    yield Finding(check="settings", level="ok", found=f"from {files_text(files)} and the environment", advice=advice)
    yield from _variables()


def _variables() -> Iterator[Finding]:
    for warning in variable_warnings():
        yield Finding(check="settings", level="note", found=warning)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(check="python", level="ok", found=found, advice=f"contexten-flow {version('contexten-flow')}")


def _has_wal_reset_race(sqlite_version: tuple[int, ...]) -> bool:
    """Whether a checkpoint of one process can race a writer of another: fixed in 3.51.3, 3.50.7 and 3.44.6."""
    major, minor, patch = sqlite_version[:3]
    fixed = {(3, 44): 6, (3, 50): 7}
    return (major, minor, patch) < (3, 51, 3) and patch < fixed.get((major, minor), 1 << 30)


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 37):
        return Finding(check="sqlite", level="problem", found=found, advice="SQLite 3.37 or newer is needed")
    if _has_wal_reset_race(sqlite3.sqlite_version_info):
        return Finding(
            check="sqlite",
            level="ok",
            found=found,
            advice="This version can corrupt a file that several programs write; Contexten Flow prevents that with a "
            "lock of its own. Do not write to the database with other programs while it is in use.",
        )
    return Finding(check="sqlite", level="ok", found=found)


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _database(settings: FlowSettings) -> Iterator[Finding]:
    from contexten.extensions.flow.store.place import network_file_system

    file = settings.database.expanduser().absolute()
    folder = _existing(file.parent)
    size = f", {file.stat().st_size / 1e6:.1f} MB" if file.exists() else ", made at first use"
    yield Finding(check="database", level="ok", found=f"{file}{size}")
    writable = os.access(folder, os.W_OK | os.X_OK) and (not file.exists() or os.access(file, os.W_OK))
    if not writable:
        yield Finding(
            check="database",
            level="problem",
            found="it cannot be written",
            advice="give this user write permission for the file and its folder, or choose another place with --db",
        )
    kind = network_file_system(folder)
    if kind is not None:
        yield Finding(
            check="database",
            level="problem",
            found=f"its folder is on a network file system ({kind})",
            advice="SQLite's locks do not hold there: choose a local folder with --db",
        )
    free = shutil.disk_usage(folder).free
    yield Finding(
        check="disk",
        level="ok" if free > _LITTLE_SPACE else "note",
        found=f"{free / 1e9:.1f} GB free",
        advice="" if free > _LITTLE_SPACE else "what is acknowledged stays safe on a full disk, but work stops",
    )


def _one_verdict(findings: list[Finding]) -> list[Finding]:
    """The findings, the database's place being part of the first problem with it, where there is one."""
    place = next(finding for finding in findings if finding.check == "database")
    problem = next((f for f in findings if f.check == "database" and f.level == "problem"), None)
    if problem is None:
        return findings
    merged = replace(problem, found=f"{place.found}: {problem.found}")
    return [merged if finding is place else finding for finding in findings if finding is not problem]


async def _service(settings: FlowSettings) -> list[Finding]:
    """What only an opened service knows: whether the file is sound, who holds it, tools and engines."""
    import tempfile

    from contexten.extensions.flow.service import FlowService

    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="contexten-flow-") as scratch:
        if settings.database.exists():
            findings.append(_servers(settings.database))
            try:
                async with FlowService(settings, drive=False, holder="contexten-flow doctor"):
                    pass
            except FlowError as error:
                findings.append(
                    Finding(check="database", level="problem", found=error.message, advice=error.next or "")
                )
        # Tools and engines are this process's, whatever becomes of the database.
        empty = settings.model_copy(update={"database": Path(scratch) / "empty.sqlite3"})
        async with FlowService(empty, holder="contexten-flow doctor") as service:
            agents = await service.agents()
    names = sorted(tool.name for tool in agents.tools)
    findings.append(Finding(check="tools", level="ok", found=", ".join(names)))
    findings += [
        Finding(check="tools", level="note", found=f"{name} is off", advice=how)
        for name, how in sorted(agents.disabled_tools.items())
    ]
    findings += _denied_tools(settings, [*names, *agents.disabled_tools])
    findings += [
        Finding(
            check="engines",
            level="ok" if engine.available else "note",
            found=engine.name if engine.available else f"{engine.name} is not available",
            advice=engine.note or "",
        )
        for engine in agents.engines
    ]
    return findings


def _denied_tools(settings: FlowSettings, known: list[str]) -> Iterator[Finding]:
    """Tools that no model may call, and that nobody offers: a slip of the pen would leave the tool that was meant to
    models. An MCP server's tools may be listed later."""
    from contexten.extensions.flow.nearest import nearest_name

    for tool in settings.model_deny_tools:
        if tool not in known and not tool.startswith("mcp:"):
            near = nearest_name(tool, known)
            yield Finding(
                check="tools",
                level="note",
                found=f"model_deny_tools names {tool}, which no agent here offers",
                advice=f"did you mean {near}?" if near else "correct the setting, or take it out",
            )


def _servers(database: Path) -> Finding:
    from contexten.extensions.flow.store.servers import drivers_of

    servers = [_describe(holder) for holder in drivers_of(database.expanduser())]
    if not servers:
        return Finding(check="server", level="ok", found="no server drives the database now")
    return Finding(check="server", level="ok", found=f"driven by {', '.join(servers)}")


def _describe(holder: dict[str, Any]) -> str:
    name = holder.get("holder") or holder.get("name") or "another process"
    return f"{name} (process {holder['pid']})" if "pid" in holder else str(name)


def _folders(settings: FlowSettings) -> Iterator[Finding]:
    for folder in settings.allow_paths:
        if not folder.expanduser().is_dir():
            yield Finding(
                check="folders",
                level="note",
                found=f"{folder} of allow_paths is not there, or is no folder",
                advice="make it, or take it out of the setting",
            )


def _secrets(settings: FlowSettings) -> Iterator[Finding]:
    for grant in settings.secrets:
        variable = grant.variable or grant.name
        receivers = ", ".join([*grant.hosts, *(f"tool {tool}" for tool in grant.tools)]) or "any tool"
        if grant.value() is None:
            yield Finding(
                check="secrets",
                level="note",
                found=f"{grant.name} is not set",
                advice=f"set the environment variable {variable} where the server starts",
            )
        else:
            yield Finding(check="secrets", level="ok", found=f"{grant.name} is set, for {receivers}")


async def _authentication(settings: FlowSettings) -> list[Finding]:
    """Who may call over HTTP; with an authorization server, whether its keys can be had."""
    findings: list[Finding] = []
    if settings.tokens:
        found = f"{len(settings.tokens)} bearer token{'' if len(settings.tokens) == 1 else 's'}"
        findings.append(Finding(check="authentication", level="ok", found=found))
    if settings.oauth_issuer:
        from contexten_server.signing_keys import IssuerUnavailable, SigningKeys

        accepted = f"access tokens of {settings.oauth_issuer} for {settings.oauth_resource}"
        if settings.oauth_scopes:
            accepted += f", with {' '.join(settings.oauth_scopes)}"
        try:
            number = await SigningKeys(settings.oauth_issuer, settings.oauth_jwks_url).fetch()
        except IssuerUnavailable as error:
            findings.append(
                Finding(
                    check="authentication",
                    level="problem",
                    found=f"{accepted}: none can be checked, {error}",
                    advice="see that the authorization server runs and can be reached from here, and that "
                    "oauth_issuer is its issuer exactly as its metadata has it",
                )
            )
        else:
            advice = "" if number else "it publishes no signing keys, so that no token can be checked"
            findings.append(
                Finding(check="authentication", level="ok" if number else "problem", found=accepted, advice=advice)
            )
    return findings


def _port(host: str, port: int) -> Finding:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return Finding(
            check="port",
            level="note",
            found=f"{host}:{port} is not free: {error.strerror}",
            advice="`serve --transport http` needs another one: --port",
        )
    return Finding(check="port", level="ok", found=f"{host}:{port} is free")
