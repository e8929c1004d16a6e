"""What is answered about the database as a whole."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .view import View


class MetricsView(View):
    """The answer to get_metrics and the resource flow://metrics."""

    scheduler: dict[str, Any]
    flows: dict[str, Any]
    tasks: dict[str, Any]
    agents: dict[str, Any]
    store: dict[str, Any]


class VerifyReport(View):
    """The answer to `contexten-flow verify`."""

    ok: bool
    runs: int
    events: int
    integrity: str
    problems: list[str] = []


class BackupReport(View):
    """The answer to `contexten-flow backup`: a copy that was checked as `verify` checks a database."""

    path: str
    size: int = Field(description="bytes")
    runs: int
    events: int
