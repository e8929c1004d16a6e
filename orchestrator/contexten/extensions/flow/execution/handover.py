"""Runs that no agent of this process can serve, left to the other servers of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..agents.ability import KINDS_WITHOUT_AGENT
from ..store import Transaction
from ..store.claims import release
from .run import RunExecution
from .unit import Fan

if TYPE_CHECKING:
    from .conductor import Conductor


class Handover:
    """Gives runs up that wait here for an agent which is not there. Used on the event loop only."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._loop = asyncio.get_running_loop()
        self._declined: dict[str, frozenset[str]] = {}
        """Runs given up here, and the agents that were there then."""

    @property
    def declined(self) -> list[str]:
        """Runs not to be taken again: none where no other server is there, or where agents came since."""
        if self._conductor.intake.share.servers == 1:
            return []
        agents = self._agents()
        self._declined = {run_id: before for run_id, before in self._declined.items() if before == agents}
        return list(self._declined)

    def consider(self, execution: RunExecution) -> None:
        """An execution waits for an agent: leave it to others where that is in vain."""
        if self._conductor.intake.share.servers > 1 and not self._conductor.is_stopping:
            self._loop.call_soon(self._give_up, execution.root())  # not in the middle of its turn

    def _give_up(self, root: RunExecution) -> None:
        conductor = self._conductor
        if root.is_over or root.has_attempts or root.ending is not None or not any(map(self._is_in_vain, _tree(root))):
            return
        runs = root.family()
        root.lose()
        self._declined[root.run_id] = self._agents()

        def given_up(_result: object, error: BaseException | None) -> None:
            if error is not None:
                conductor.take_back(runs)

        conductor.store.submit(partial(_release, runs=runs, at=conductor.clock.timestamp()), given_up)

    def _agents(self) -> frozenset[str]:
        return frozenset(agent.name for agent in self._conductor.registry.agents)

    def _is_in_vain(self, execution: RunExecution) -> bool:
        nodes = [entry.unit.node if isinstance(entry, Fan) else entry.node for entry in execution.starter.ready]
        tasks = [node.task for node in nodes if node.task.type not in KINDS_WITHOUT_AGENT]
        return any(self._conductor.registry.select(task) is None for task in tasks)


def _tree(execution: RunExecution) -> Iterator[RunExecution]:
    yield execution
    for child in execution.subflows.live.values():
        yield from _tree(child)


def _release(tx: Transaction, runs: list[tuple[str, str, int]], at: float) -> None:
    release(tx, runs, at)
