"""What an execution asks of the process around it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..clock import Clock
from ..definition import Plan
from ..engines import Engines
from ..flows.plans import Plans
from ..recovery.rules import RecoveryRules
from ..settings import FlowSettings
from ..store import ClaimedRun, Store
from .admission import Admission
from .timers import Timers

if TYPE_CHECKING:
    from .handover import Handover
    from .recoverer import Recoverer
    from .run import RunExecution


class Host(Protocol):
    """The conductor, as an execution sees it."""

    settings: FlowSettings
    clock: Clock
    store: Store
    timers: Timers
    plans: Plans
    registry: AgentRegistry
    engines: Engines
    vault: SecretVault
    admission: Admission
    recoverer: Recoverer
    handover: Handover
    is_stopping: bool
    """Start nothing more; attempts in flight may end."""

    @property
    def rules(self) -> RecoveryRules:
        """What is done about failures now."""
        ...

    def spawn(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, name: str) -> None:
        """Run a coroutine function in the conductor's task group."""
        ...

    def spawn_attempt(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, name: str) -> None:
        """Run a coroutine function that waits for an agent: the conductor leaves it behind where it refuses to end."""
        ...

    def agents_changed(self) -> None:
        """Agents may have free places: tell who waits for one."""
        ...

    def wait_for_agent(self, execution: RunExecution) -> None:
        """Tell the execution (`poke`) when an agent has a free place."""
        ...

    def begin(self, claimed: ClaimedRun, plan: Plan, parent: RunExecution | None) -> RunExecution:
        """Drive a run from here on."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop; at once where this is its thread. Safe from any thread."""
        ...

    def kick(self) -> None:
        """Something may be queued."""
        ...

    def take_back(self, runs: list[tuple[str, str, int]]) -> None:
        """Drive a run (the first) and its sub-flows anew from what the store says."""
        ...

    def left(self, execution: RunExecution) -> None:
        """The execution drives its run no more: it ended, waits, is paused, was released or lost."""
        ...
