"""The file that names MCP servers: the common `mcpServers` format, and what is ours in it.

    {"mcpServers": {
        "files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv/data"]},
        "issues": {"url": "https://issues.example.com/mcp", "headers": {"Authorization": "Bearer ${secret:ISSUES}"},
                   "allow": ["search_*", "get_issue"], "timeout_s": 60, "capacity": 4}}}

`${secret:NAME}` in a header or in `env` is the value of a secret that the settings grant to `tool:mcp:<server>` (or to
the server's host, or to everybody). It is read when the server is opened, and never kept or logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...clock import Clock
from ...definition import DuplicateKeys, load_json
from ...definition.pointers import pointer
from ...errors import FlowError, InvalidArguments, Issue
from ...nearest import nearest_name
from ...settings import FlowSettings
from ..reserved import owner_of
from ..secrets import SecretVault
from .agent import McpAgent
from .target import HttpTarget, StdioTarget

ROOT = "mcpServers"
_MAX_FILE_BYTES = 1 << 20
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_SECRET = re.compile(r"secret:([A-Za-z_][A-Za-z0-9_]{0,63})")
_HEADER_NAME = re.compile(r"[0-9A-Za-z!#$%&'*+\-.^_`|~]+")
_STDIO = ("args", "env", "cwd")
_HTTP = ("headers",)


class McpServersError(FlowError):
    """The file that names MCP servers is missing, cannot be read, or is wrong; `issues` says where."""

    code = "mcp_servers"


class ServerConfig(BaseModel):
    """One MCP server: a program to start (`command`) or an address (`url`), and what flows may do with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: Literal["stdio", "http", "streamable-http", "streamableHttp"] | None = None
    command: str | None = Field(None, min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cwd: Path | None = None
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    description: str = ""
    disabled: bool = False
    allow: tuple[str, ...] = ("*",)
    """Patterns (as of file names: `*`, `?`, `[...]`) of the tools that flows may use."""
    timeout_s: float = Field(300.0, gt=0, le=86_400)
    """How long a call may take, in tasks that set no timeout_s."""
    connect_timeout_s: float = Field(30.0, gt=0, le=600)
    """How long the server may take until it can be asked, and how long to list its tools."""
    capacity: int = Field(10, ge=1, le=10_000)
    """Calls at once."""

    @field_validator("type", mode="before")
    @classmethod
    def _no_sse(cls, kind: Any) -> Any:
        if kind == "sse":
            raise ValueError("the older HTTP+SSE transport is not spoken; use the server's streamable HTTP address")
        return kind

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://x")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a url is absolute, such as https://example.com/mcp")
        if parts.username or parts.password:
            raise ValueError("credentials do not belong into a url; put them into headers, as ${secret:NAME}")
        return url

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name[:60]!r} is not a header's name")
            if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
                raise ValueError(f"the value of {name} holds a line break or another control character")
        return headers

    @field_validator("headers", "env")
    @classmethod
    def _check_references(cls, values: dict[str, str]) -> dict[str, str]:
        for name, value in values.items():
            for found in _REFERENCE.findall(value):
                if not _SECRET.fullmatch(found):
                    raise ValueError(
                        f"{name} holds ${{{found[:60]}}}, which nothing replaces here; name the variable in the "
                        "setting secrets and write ${secret:NAME}"
                    )
        return values

    @model_validator(mode="after")
    def _one_transport(self) -> ServerConfig:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command (a program to start) or url (streamable HTTP)")
        foreign = _HTTP if self.command is not None else _STDIO
        for name in foreign:
            if name in self.model_fields_set:
                raise ValueError(f"{name} does not go with {'command' if self.command is not None else 'url'}")
        if self.type is not None and (self.type == "stdio") != (self.command is not None):
            raise ValueError(f"type {self.type} does not go with {'command' if self.command is not None else 'url'}")
        return self


def mcp_agents(settings: FlowSettings, vault: SecretVault, clock: Clock) -> list[McpAgent]:
    """The agents of the servers that the settings name; none is opened yet. Raises McpServersError."""
    if settings.mcp_servers is None:
        return []
    message_bytes = 3 * settings.max_output_bytes + (1 << 20)
    """Servers send the same data twice, as text and structured, the text escaped."""
    return [
        McpAgent(
            name,
            target=_target(name, config, vault),
            allow=config.allow,
            timeout_s=config.timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            capacity=config.capacity,
            max_message_bytes=message_bytes,
            vault=vault,
            clock=clock,
        )
        for name, config in read_servers(settings.mcp_servers).items()
        if not config.disabled
    ]


def read_servers(path: Path) -> dict[str, ServerConfig]:
    """The servers that the file names, those that are disabled included. Raises McpServersError with all that is
    wrong."""
    document = _load(path)
    servers = document.get(ROOT) if isinstance(document, dict) else None
    if not isinstance(servers, dict):
        near = nearest_name(ROOT, document) if isinstance(document, dict) else None
        hint = f"; did you mean {ROOT!r} instead of {near!r}?" if near else ""
        raise _wrong(path, [_issue("", f'expected an object {{"{ROOT}": {{name: server}}}}{hint}', suggestion=ROOT)])
    issues: list[Issue] = [
        _issue(pointer(key), f"{key[:60]!r} is not known here; servers stand in {ROOT}")
        for key in document
        if key != ROOT
    ]
    configs: dict[str, ServerConfig] = {}
    for name, raw in servers.items():
        if not _SERVER_NAME.fullmatch(name):
            issues.append(_issue(pointer(ROOT, name), "a server's name is letters, digits, '_', '-', '.'"))
            continue
        if (whose := owner_of(name)) is not None:
            issues.append(_issue(pointer(ROOT, name), f"the name {name!r} is that of {whose}; choose another"))
            continue
        try:
            configs[name] = ServerConfig.model_validate(raw)
        except ValidationError as error:
            issues += _issues(name, error)
    if issues:
        raise _wrong(path, issues)
    return configs


def _load(path: Path) -> Any:
    path = path.expanduser()
    try:
        content = path.read_bytes()
        if len(content) > _MAX_FILE_BYTES:
            raise _wrong(path, [_issue("", f"it is larger than {_MAX_FILE_BYTES:,} bytes")])
        return load_json(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise McpServersError(
            f"The setting mcp_servers names {path}, and there is no such file.",
            next="Correct the setting, or make the file.",
        ) from None
    except OSError as error:
        raise McpServersError(f"{path} cannot be read: {error.strerror}.") from None
    except DuplicateKeys as error:
        raise _wrong(path, [_issue(place, f"{key[:60]!r} is there twice") for place, key in error.keys]) from None
    except (ValueError, RecursionError) as error:
        raise _wrong(path, [_issue("", f"it is no JSON: {str(error)[:200]}")]) from None


def _issues(name: str, error: ValidationError) -> list[Issue]:
    found = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        location = problem["loc"]
        message, suggestion = problem["msg"].removeprefix("Value error, "), None
        if problem["type"] == "extra_forbidden" and len(location) == 1:
            known = [field for field in ServerConfig.model_fields if field != "description"]
            suggestion = nearest_name(str(location[0]), known)
            hint = f"did you mean {suggestion!r}?" if suggestion else f"there are {', '.join(known)}"
            message = f"{str(location[0])[:60]!r} is not known; {hint}"
        elif problem["type"] == "tuple_type":
            message = "a list of texts is expected"
        found.append(_issue(pointer(ROOT, name, *location), message, suggestion=suggestion))
    return found


def _issue(path: str, message: str, *, suggestion: str | None = None) -> Issue:
    return Issue(path=path, code="mcp_servers", message=message, suggestion=suggestion)


def _wrong(path: Path, issues: list[Issue]) -> McpServersError:
    first, more = issues[0], f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    where = f" at {first.path}" if first.path else ""
    return McpServersError(
        f"{path}{where}: {first.message}{more}.",
        next="Correct the file that the setting mcp_servers names.",
        issues=issues,
    )


def _target(name: str, config: ServerConfig, vault: SecretVault) -> StdioTarget | HttpTarget:
    host = None
    if config.url is not None:
        parts = urlsplit(config.url)
        host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    resolve = _Resolver(name, host, vault)
    values = config.env if config.url is None else config.headers
    resolve.check(values)
    if config.url is not None:
        return HttpTarget(url=config.url, headers=lambda: resolve(config.headers))
    assert config.command is not None  # noqa: S101 - one of the two is given
    return StdioTarget(
        command=config.command,
        args=config.args,
        env=lambda: resolve(config.env),
        cwd=None if config.cwd is None else config.cwd.expanduser(),
    )


class _Resolver:
    """Puts secrets into the place of their references."""

    def __init__(self, server: str, host: str | None, vault: SecretVault) -> None:
        self._tool = f"mcp:{server}"
        self._host = host
        self._vault = vault

    def check(self, values: Mapping[str, str]) -> None:
        """Raises InvalidArguments where a secret that they name is not granted to the server."""
        for value in values.values():
            for secret in _SECRET.findall(value):
                by_host = self._host is not None and self._vault.granted_to_host(secret, self._host)
                if not by_host and not self._vault.allowed(secret, tool=self._tool):
                    known = secret in self._vault.names
                    raise InvalidArguments(
                        f"The MCP server {self._tool.removeprefix('mcp:')} is to get the secret {secret}, "
                        + ("which the settings do not grant to it." if known else "which the settings do not name."),
                        next=f"Add {secret}@tool:{self._tool} to the setting secrets.",
                    )

    def __call__(self, values: Mapping[str, str]) -> dict[str, str]:
        """The values with the secrets in them. Raises AttemptError (invalid) where one has no value."""
        return {name: _REFERENCE.sub(self._replace, value) for name, value in values.items()}

    def _replace(self, found: re.Match[str]) -> str:
        return self._vault.value(found[1].removeprefix("secret:"))
