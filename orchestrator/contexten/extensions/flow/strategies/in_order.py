"""What the strategies share that take runs strictly in their order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from .protocol import AgentLoad, QueuedRun, Situation
from .room import Room


class InOrder(ABC):
    """Starts runs in the order of their keys and none before the one ahead of it; the first free agent takes a task.

    A decision is linear in what it admits, plus one pass over the running runs that hold pools.
    """

    look_ahead = 0
    needs_estimates = False

    @abstractmethod
    def key(self, run: QueuedRun) -> float:
        """Fixed when the run is queued: lower starts first."""

    def admit(self, queue: Sequence[QueuedRun], situation: Situation) -> list[QueuedRun]:
        """The head of the queue, up to the first run that does not fit."""
        return admit_head(queue, Room(situation))

    def place(self, agents: Sequence[AgentLoad]) -> int | None:
        """The first agent with a free place."""
        return next((index for index, agent in enumerate(agents) if agent.running < agent.capacity), None)


def admit_head(queue: Sequence[QueuedRun], room: Room) -> list[QueuedRun]:
    """The head of the queue up to the first run that does not fit, taken from the room."""
    admitted: list[QueuedRun] = []
    for run in queue:
        needs = room.needs(run.demands)
        if not room.has(needs):
            break
        room.take(needs)
        admitted.append(run)
    return admitted
