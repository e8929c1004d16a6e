"""Compiled plans of saved definitions, and their graphs, kept for as long as they are used."""

from __future__ import annotations

from collections import OrderedDict

from ..definition import Plan, WorkflowDefinition, compile_plan
from ..definition.graph import Graph
from ..errors import FlowNotFound
from ..store import Store
from ..store.sql import SQL

PLANS_KEPT = 256


class Plans:
    """A bounded cache in front of the store. A saved version never changes, so neither does its plan."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], Plan] = OrderedDict()
        self._graphs: dict[int, tuple[Plan, Graph]] = {}

    def get(self, flow_id: str, version: int) -> Plan | None:
        """The plan, if it is kept."""
        return self._kept.get((flow_id, version))

    def keep(self, flow_id: str, version: int, plan: Plan) -> None:
        """Keep a plan that will be needed."""
        self._kept[flow_id, version] = plan
        self._kept.move_to_end((flow_id, version))
        while len(self._kept) > PLANS_KEPT:
            _, dropped = self._kept.popitem(last=False)
            self._graphs.pop(id(dropped), None)

    def clear(self) -> None:
        """Forget all; each is made again when it is needed."""
        self._kept.clear()
        self._graphs.clear()

    def forget(self, flow_id: str) -> None:
        """The flow is gone; another may come by its id."""
        for key in [key for key in self._kept if key[0] == flow_id]:
            self._graphs.pop(id(self._kept.pop(key)), None)

    async def plan_of(self, flow_id: str, version: int | None = None) -> tuple[Plan, int]:
        """A saved flow's plan and version (None: the latest). Raises FlowNotFound."""
        if version is None:
            head = await self._store.row(SQL["flow_head"], (flow_id,))
            if head is None:
                raise FlowNotFound(f"There is no flow {flow_id[:200]!r}.", next="Call list_flows() to see the flows.")
            version = int(head[0])
        plan = self.get(flow_id, version)
        if plan is None:
            row = await self._store.row(SQL["read_definition"], (flow_id, version))
            if row is None:
                raise FlowNotFound(
                    f"The flow {flow_id!r} has no version {version}.",
                    next=f"Call get_flow_status(flow_id={flow_id!r}) for its latest version.",
                )
            plan = compile_plan(WorkflowDefinition.model_validate_json(row[0]))
            self.keep(flow_id, version, plan)
        return plan, version

    def graph(self, plan: Plan) -> Graph:
        """The plan's graph."""
        kept = self._graphs.get(id(plan))
        if kept is None or kept[0] is not plan:
            if len(self._graphs) > PLANS_KEPT:
                self._graphs.clear()
            kept = self._graphs[id(plan)] = (plan, Graph.of(plan))
        return kept[1]
