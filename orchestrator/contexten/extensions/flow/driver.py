"""The half of a core that drives: its conductor, and what tells Prefect of the runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .engines.choice import installed_version
from .execution.conductor import Conductor
from .execution.run import RunExecution
from .live.watching import Watchers

if TYPE_CHECKING:
    from .prefect.mirror import Mirror


class Driver:
    """Drives runs of a database from its start to its stop. In a process that only asks it is never started: then
    nothing goes on here, and it has nothing to tell."""

    def __init__(self, conduct: Callable[[asyncio.TaskGroup], Conductor], watchers: Watchers) -> None:
        """`conduct` makes the conductor, whose tasks are in that group."""
        self._conduct = conduct
        self._watchers = watchers
        self.conductor: Conductor | None = None
        """While it drives. Written by `start` and `stop` only."""
        self._mirror: Mirror | None = None

    async def start(self, group: asyncio.TaskGroup, control: Callable[..., Awaitable[Any]]) -> None:
        """Take over what others left running, then claim; `control` is how somebody cancels a run in Prefect. Raises
        StoreError; then, too, it is to be stopped."""
        conductor = self.conductor = self._conduct(group)
        await conductor.start()
        if installed_version("prefect") is not None:
            from .prefect.mirror import Mirror

            self._mirror = Mirror(
                store=conductor.store,
                plans=conductor.plans,
                clock=conductor.clock,
                vault=conductor.vault,
                watchers=self._watchers,
                access=conductor.engines.prefect(),
                server_id=lambda: conductor.owner,
                control=control,
            )
            self._mirror.start(group)

    async def stop(self) -> None:
        """Stop within `stop_grace_s`: attempts may end, Prefect is told, and what is left is anybody's."""
        conductor = self.conductor
        if conductor is None:
            return
        deadline = conductor.clock.monotonic() + conductor.settings.stop_grace_s
        mirror, self._mirror = self._mirror, None
        try:
            await conductor.stop()
            if mirror is not None:
                await mirror.aclose(deadline - conductor.clock.monotonic())
        finally:
            self.conductor = None

    def abandon(self) -> None:
        """Leave the runs to anybody where the event loop that it was started on is closed."""
        if self.conductor is not None:
            self.conductor.leases.let_go()

    @property
    def executions(self) -> Mapping[str, RunExecution]:
        """The runs under way here, by id."""
        return self.conductor.executions if self.conductor is not None else {}

    def owner(self) -> str | None:
        """Under which id this process owns runs."""
        return self.conductor.owner if self.conductor is not None else None

    def holds(self, run_id: str) -> dict[str, str]:
        """What keeps tasks of a run under way here from starting besides busy agents, by task."""
        return self.conductor.holds(run_id) if self.conductor is not None else {}

    def kick(self) -> None:
        """Something may be queued, or more of it may start."""
        if self.conductor is not None:
            self.conductor.kick()

    def agents_changed(self) -> None:
        """Agents may have free places."""
        if self.conductor is not None:
            self.conductor.agents_changed()
