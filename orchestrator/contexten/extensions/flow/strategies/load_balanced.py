"""By priority, with tasks placed on the agent that has least to do."""

from __future__ import annotations

from collections.abc import Sequence

from .priority import Priority
from .protocol import AgentLoad


def least_loaded(agents: Sequence[AgentLoad]) -> int | None:
    """The agent with a free place and the least outstanding complexity per capacity; of equals the first."""
    free = [index for index, agent in enumerate(agents) if agent.running < agent.capacity]
    return min(free, key=lambda index: agents[index].outstanding / agents[index].capacity, default=None)


class LoadBalanced(Priority):
    """Runs start by priority, as under `priority`; each task goes to the least loaded agent.

    List scheduling (R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM Journal on Applied Mathematics
    17(2), 1969) on machines of unlike speed: the load of an agent is the complexity of its tasks under way per place.
    A placement is linear in the number of agents that are able to do the task.
    """

    name = "load_balanced"

    def place(self, agents: Sequence[AgentLoad]) -> int | None:
        """The least loaded agent with a free place."""
        return least_loaded(agents)
