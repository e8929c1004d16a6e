"""Runs that this process cannot go on with, left to the other servers of the database.

A task waits in vain where no agent of this process offers its tools, or a secret of it is not here. The run is then
given up, and its `run.released` names the tasks. A server takes it unless it gave it up for the same tasks itself.
Where all others that live have given it up for a task whose secret is missing here too, the attempt is made: it fails
and says what is missing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..agents.ability import KINDS_WITHOUT_AGENT
from ..definition import TaskNode
from ..errors import AttemptError, StoreError
from ..states import TERMINAL_RUN_STATES
from ..store import Event, Transaction
from ..store.claims import release
from ..store.sql import SQL
from .run import RunExecution
from .unit import Fan

if TYPE_CHECKING:
    from .conductor import Conductor

logger = logging.getLogger(__name__)

RETRY_S = 1.0  # between tries to ask for other servers while the database cannot be read

_ENDINGS = frozenset(f"run.{state}" for state in TERMINAL_RUN_STATES)

Agents = frozenset[tuple[str, tuple[str, ...]]]


class _Declined(NamedTuple):
    """Why a run was given up here, and what was there then."""

    tasks: frozenset[str]
    agents: Agents
    servers: int


class Handover:
    """Gives runs up that wait here in vain. Used on the event loop only."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._loop = asyncio.get_running_loop()
        self._declined: dict[str, _Declined] = {}
        self._kept: dict[str, set[str]] = {}
        """By run, the tasks that are tried here since no other server has their secrets either."""
        self._asked: set[str] = set()
        """Runs for which other servers are being looked for."""

    @property
    def declined(self) -> list[str]:
        """Runs not to be taken again until they end, other agents are here or a server is gone."""
        agents, servers = self._agents(), self._conductor.intake.share.servers
        self._declined = {
            run_id: before
            for run_id, before in self._declined.items()
            if before.agents == agents and before.servers <= servers
        }
        return list(self._declined)

    def awaits_others(self, execution: RunExecution, node: TaskNode) -> bool:
        """Whether a task is not to be tried here: a secret of it is missing, and another server may have it."""
        if not node.parameter_secrets or self._conductor.intake.share.servers == 1:
            return False
        return self._lacks_secret(execution, node)

    def consider(self, execution: RunExecution) -> None:
        """Something of an execution waits: leave its run to others where that is in vain."""
        if self._conductor.intake.share.servers > 1 and not self._conductor.is_stopping:
            self._loop.call_soon(self._consider, execution.root())  # not in the middle of its turn

    def heard(self, event: Event) -> None:
        """The journal has a new entry about a run, of this process or another."""
        if event.run_id is None:
            return
        if event.type in _ENDINGS:
            self._declined.pop(event.run_id, None)
            self._kept.pop(event.run_id, None)
        elif event.type == "run.released" and event.data is not None:
            before = self._declined.get(event.run_id)
            if before is not None and not before.tasks.issuperset(json.loads(event.data)["unserved"]):
                del self._declined[event.run_id]  # it may be able to do what the other server is not

    def _consider(self, root: RunExecution) -> None:
        waiting = self._in_vain(root)
        if not waiting or not self._may_go(root):
            return
        if any(not _has_agent(execution, node) for execution, node in waiting):
            self._give_up(root, waiting)
        elif root.run_id not in self._asked:
            self._asked.add(root.run_id)
            self._conductor.spawn(self._look_for_server, root, name=f"{root.run_id} handover")

    async def _look_for_server(self, root: RunExecution) -> None:
        """Give a run up that wants secrets if a server is left to try, else keep it."""
        conductor, waiting = self._conductor, self._in_vain(root)
        arguments = (conductor.owner, root.run_id, json.dumps(sorted(_places(root, waiting))))
        try:
            untried = await conductor.store.row(SQL["untried_server"], arguments)
        except StoreError as error:
            logger.warning("other servers cannot be asked now: %s", error, extra={"run_id": root.run_id})
            conductor.timers.after(RETRY_S, partial(self._consider, root))
            return
        finally:
            self._asked.discard(root.run_id)
        if root.is_over:
            return
        if untried is None:
            for execution, node in waiting:
                self._kept.setdefault(execution.run_id, set()).add(node.name)
            for execution, _ in waiting:
                execution.poke()
        elif self._may_go(root):
            self._give_up(root, waiting)

    def _give_up(self, root: RunExecution, waiting: list[tuple[RunExecution, TaskNode]]) -> None:
        conductor, runs, places = self._conductor, root.family(), _places(root, waiting)
        root.lose()
        self._declined[root.run_id] = _Declined(places, self._agents(), conductor.intake.share.servers)
        data = json.dumps({"server_id": conductor.owner, "unserved": sorted(places)})

        def given_up(_result: object, error: BaseException | None) -> None:
            if error is not None:
                conductor.take_back(runs)

        conductor.store.submit(partial(_release, runs=runs, at=conductor.clock.timestamp(), data=data), given_up)

    def _may_go(self, root: RunExecution) -> bool:
        is_ending = root.is_over or root.ending is not None or self._conductor.is_stopping
        return not is_ending and not root.has_attempts

    def _agents(self) -> Agents:
        return frozenset((agent.name, tuple(agent.tools)) for agent in self._conductor.registry.agents)

    def _in_vain(self, root: RunExecution) -> list[tuple[RunExecution, TaskNode]]:
        """What of a run waits here in vain."""
        return [
            (execution, node)
            for execution in _tree(root)
            for entry in execution.starter.ready
            if (node := entry.unit.node if isinstance(entry, Fan) else entry.node).task.type not in KINDS_WITHOUT_AGENT
            and (not _has_agent(execution, node) or self._lacks_secret(execution, node))
        ]

    def _lacks_secret(self, execution: RunExecution, node: TaskNode) -> bool:
        if node.name in self._kept.get(execution.run_id, ()):
            return False
        return not all(map(self._has_secret, node.secrets))

    def _has_secret(self, name: str) -> bool:
        try:
            self._conductor.vault.value(name)
        except AttemptError:
            return False
        return True


def _has_agent(execution: RunExecution, node: TaskNode) -> bool:
    return execution.staff.select(node.task) is not None


def _tree(execution: RunExecution) -> Iterator[RunExecution]:
    yield execution
    for child in execution.subflows.live.values():
        yield from _tree(child)


def _places(root: RunExecution, waiting: list[tuple[RunExecution, TaskNode]]) -> frozenset[str]:
    """The tasks by name, those of sub-flows with their runs."""
    return frozenset(node.name if run is root else f"{run.run_id}/{node.name}" for run, node in waiting)


def _release(tx: Transaction, runs: list[tuple[str, str, int]], at: float, data: str) -> None:
    release(tx, runs, at, data)
