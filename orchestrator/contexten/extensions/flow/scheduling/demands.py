"""What a run holds while it has a slot: the most that its tasks may need of each pool at once."""

from __future__ import annotations

from collections.abc import Mapping

from ..agents.ability import KINDS_WITHOUT_AGENT
from ..agents.staff import Staff
from ..definition import Plan, TaskNode
from ..errors import InvalidArguments, Issue
from ..flows.planview import predecessors
from ..nearest import nearest_name

PLANS_KEPT = 256


class Demands:
    """What runs of plans hold, worked out once for each plan and set of agents."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], tuple[Plan, Staff, int, dict[str, float], dict[str, float]]] = {}

    def of(self, plan: Plan, staff: Staff) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Of pools, and of agents' places."""
        kept = self._kept.get((id(plan), id(staff)))
        if kept is None or kept[0] is not plan or kept[1] is not staff or kept[2] != staff.generation:
            if len(self._kept) >= PLANS_KEPT:
                self._kept.clear()
            kept = plan, staff, staff.generation, pool_demands(plan), agent_demands(plan, staff)
            self._kept[id(plan), id(staff)] = kept
        return kept[3], kept[4]


def pool_demands(plan: Plan) -> dict[str, float]:
    """The resources that the plan's tasks declare, by pool."""
    return _peaks(plan, {name: dict(node.task.resources) for name, node in plan.tasks.items() if node.task.resources})


def agent_demands(plan: Plan, staff: Staff) -> dict[str, float]:
    """Places of agents, by `agent:NAME`: each task at the agent that would take it first."""
    needs: dict[str, dict[str, float]] = {}
    for name, node in plan.tasks.items():
        agent = None if node.task.type in KINDS_WITHOUT_AGENT else staff.select(node.task)
        if agent is not None:
            needs[name] = {f"agent:{agent.name}": 1.0}
    return _peaks(plan, needs)


def _peaks(plan: Plan, needs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """For each pool an upper bound of what tasks that may run at the same time need together.

    Tasks that may all run at once are pairwise unordered. So what the tasks unordered with one task need together, its
    own need included, bounds every such set that holds it; the largest of these bounds is the answer. Sets of tasks are
    the bits of a number, and tasks of equal need are counted together.
    """
    if not needs:
        return {}
    bits = {name: 1 << place for place, name in enumerate(plan.order)}
    ordered = _ordered(plan, bits)
    groups: dict[str, dict[float, int]] = {}
    peaks: dict[str, float] = {}
    for name, amounts in needs.items():
        for pool, amount in amounts.items():
            need = amount * _width(plan.tasks[name])
            if name in bits:
                alike = groups.setdefault(pool, {})
                alike[need] = alike.get(need, 0) | bits[name]
            else:  # on_failure tasks run one by one, when all others have ended
                peaks[pool] = max(peaks.get(pool, 0.0), need)
    for name in needs.keys() & bits.keys():
        for pool in needs[name]:
            together = sum(need * (mask & ~ordered[name]).bit_count() for need, mask in groups[pool].items())
            peaks[pool] = max(peaks.get(pool, 0.0), together)
    return peaks


def _ordered(plan: Plan, bits: Mapping[str, int]) -> dict[str, int]:
    """For each task of a stage those that always run before or after it."""
    direct = predecessors(plan)
    before: dict[str, int] = {}
    after = dict.fromkeys(plan.order, 0)
    for name in plan.order:
        before[name] = 0
        for other in direct[name]:
            before[name] |= bits[other] | before[other]
    for name in reversed(plan.order):
        for other in direct[name]:
            after[other] |= bits[name] | after[name]
    return {name: before[name] | after[name] for name in plan.order}


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
