"""What a run holds while it has a slot: the most that its tasks may need of each pool at once."""

from __future__ import annotations

from collections.abc import Mapping

from .agents.ability import KINDS_WITHOUT_AGENT
from .agents.registry import AgentRegistry
from .definition import Plan, TaskNode
from .errors import InvalidArguments, Issue
from .nearest import nearest_name
from .planview import ancestors


def pool_demands(plan: Plan) -> dict[str, float]:
    """The resources that the plan's tasks declare, by pool."""
    return _peaks(plan, {name: dict(node.task.resources) for name, node in plan.tasks.items() if node.task.resources})


def agent_demands(plan: Plan, registry: AgentRegistry) -> dict[str, float]:
    """Places of agents, by `agent:NAME`: each task at the agent that would take it first."""
    needs: dict[str, dict[str, float]] = {}
    for name, node in plan.tasks.items():
        agent = None if node.task.type in KINDS_WITHOUT_AGENT else registry.select(node.task)
        if agent is not None:
            needs[name] = {f"agent:{agent.name}": 1.0}
    return _peaks(plan, needs)


def _peaks(plan: Plan, needs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """For each pool an upper bound of what tasks that may run at the same time need together.

    Tasks that may all run at once are pairwise unordered. So what the tasks unordered with one task need together, its
    own need included, bounds every such set that holds it; the largest of these bounds is the answer.
    """
    if not needs:
        return {}
    before = ancestors(plan)

    def may_meet(one: str, other: str) -> bool:
        if one not in before or other not in before:  # on_failure tasks run one by one, when all others have ended
            return False
        return other not in before[one] and one not in before[other]

    peaks: dict[str, float] = {}
    for name in needs:
        together: dict[str, float] = {}
        for other, amounts in needs.items():
            if other == name or may_meet(name, other):
                for pool, amount in amounts.items():
                    together[pool] = together.get(pool, 0.0) + amount * _width(plan.tasks[other])
        for pool in needs[name]:
            peaks[pool] = max(peaks.get(pool, 0.0), together[pool])
    return peaks


def _width(node: TaskNode) -> int:
    """How many attempts of the task may run at once: of a for_each without max_parallel as many as it has items,
    which is not known before."""
    return node.task.max_parallel or 1 if node.for_each is not None else 1


def check_pools(demands: Mapping[str, float], pools: Mapping[str, float]) -> None:
    """Raises InvalidArguments where a pool is not declared, or smaller than what the run needs at once."""
    for name, amount in demands.items():
        size = pools.get(name)
        if size is None:
            known = ", ".join(sorted(pools)) or "none"
            raise InvalidArguments(
                f"The flow needs the resource pool {name!r}; the pools are: {known}.",
                next="Declare it in the settings (POOLS, such as gpu=2), or take it out of the task's resources.",
                issues=[
                    Issue(
                        path=f"/resources/{name}",
                        code="unknown_pool",
                        message="no such pool",
                        expected=sorted(pools),
                        got=name,
                        suggestion=nearest_name(name, list(pools)),
                    )
                ],
            )
        if amount > size:
            raise InvalidArguments(
                f"The flow may need {amount:g} of the resource pool {name!r} at once; it has {size:g}.",
                next="Make the pool larger (POOLS), the demand smaller, or limit max_parallel.",
                issues=[
                    Issue(path=f"/resources/{name}", code="pool_too_small", message=f"{size:g} at most", got=amount)
                ],
            )
