"""What the tools of a server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tools are listed before the service and all that it needs is imported
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.settings import FlowSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One open service and how it is served. The service is opened and closed by whoever made it."""

    service: FlowService
    settings: FlowSettings
    transport: str = "stdio"
    """What the process was started for: stdio, sse or http; each call says its own in the audit trail."""
    read_only: bool = False
    """Tools that change anything are not listed, and refused when called."""
    toolsets: tuple[str, ...] = ("default",)
