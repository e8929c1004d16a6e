"""The seam of engines.

The orchestrator plans, retries and records; an engine says who makes the attempts of work that no tool and no agent
given from Python does. So journal, states, recovery, limits and crashes are the same on each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..agents.protocol import Agent
from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..clock import Clock
from ..models.toolbox import Toolbox
from ..settings import FlowSettings
from ..views import EngineView


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What an engine may use of the process around it."""

    settings: FlowSettings
    clock: Clock
    vault: SecretVault
    registry: AgentRegistry
    toolbox: Toolbox
    enabled: set[str] = field(default_factory=set)
    """Engines that `auto` may choose."""


class Engine(Protocol):
    """One engine of this process. Making one imports nothing of its library and starts nothing, and has the registry
    hire the worker that is its own."""

    name: str

    @property
    def worker(self) -> Agent:
        """Who makes the attempts of the tasks that are the engine's. Raises EngineUnavailable where it cannot be made,
        for a library that it needs is not installed."""
        ...

    def problem(self, model: str | None = None) -> str | None:
        """Why its worker can do nothing now, or nothing with that model, with what mends that; None where nothing is
        known against it. Raises EngineUnavailable as `worker` does."""
        ...

    async def view(self) -> EngineView:
        """Whether it is installed, at which version, reachable or not, and why."""
        ...

    async def aclose(self) -> None:
        """Let go of what it holds: models, child processes, connections."""
        ...
