"""Where an MCP server is: a program to start, or an address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioTarget:
    """A program that speaks over its standard input and output."""

    command: str
    args: tuple[str, ...]
    env: Callable[[], dict[str, str]]
    """Besides what such programs inherit; asked at each start. Raises AttemptError where a secret has no value."""
    cwd: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """An address that speaks streamable HTTP."""

    url: str
    headers: Callable[[], dict[str, str]]
    """Sent with each request; asked at each opening. Raises AttemptError where a secret has no value."""


Target = StdioTarget | HttpTarget
