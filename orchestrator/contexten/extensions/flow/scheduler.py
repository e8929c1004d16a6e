"""FlowScheduler: the queue from Python."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psutil

from .executor import FlowExecutor
from .settings import FlowSettings
from .sharing import Facade
from .store.sql import SQL
from .strategies import SchedulingStrategy


class FlowScheduler(Facade):
    """Queues runs under a strategy and tells how long the queue is."""

    def __init__(
        self,
        agents: Any = None,
        strategy: SchedulingStrategy | str | None = None,
        max_concurrent_flows: int | None = None,
        enable_load_balancing: bool = True,
        *,
        executor: FlowExecutor | None = None,
        settings: FlowSettings | None = None,
    ) -> None:
        """Without a `strategy` the database's remembered one holds. `enable_load_balancing` lets tasks go to the least
        loaded of several able agents, which the registry always does. Raises InvalidArguments, NotAvailableYet."""
        super().__init__(
            agents,
            settings=settings,
            default_retry=executor.policy if executor else None,
            strategy=strategy,
            max_concurrent_flows=max_concurrent_flows,
        )
        self.enable_load_balancing = enable_load_balancing

    async def schedule_flow(
        self,
        workflow: object = None,
        workflow_def: object | None = None,
        priority: int | str | None = None,
        deadline: object | None = None,
        dependencies: list[str] | None = None,
        *,
        inputs: dict[str, Any] | None = None,
        framework: str = "auto",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Queue a run; answers `run_id`, `flow_id`, `state`.

        `workflow` is a flow's id or a definition; beside a `workflow_def` it is that definition's name.
        Raises as `FlowManager.execute_flow`.
        """
        service = await self.service()
        is_id = isinstance(workflow, str) and workflow_def is None and not workflow.lstrip().startswith("{")
        run = await service.execute_flow(
            flow_id=workflow if is_id and isinstance(workflow, str) else None,
            workflow_def=None if is_id else (workflow_def if workflow_def is not None else workflow),
            name=workflow if isinstance(workflow, str) and workflow_def is not None else None,
            inputs=inputs,
            priority=priority,
            deadline=deadline,
            dependencies=dependencies,
            framework=framework,
            timeout_s=timeout_s,
        )
        return run.data()

    def get_scheduler_status(self) -> dict[str, Any]:
        """How the queue stands now: `running` (whether it takes runs), `pending_flows`, `running_flows`, `strategy`,
        `system_load` (0 to 100). Answers before `start()` too."""
        counts: dict[str, int] = {}
        strategy = self._strategy or self.settings.strategy
        path = self.settings.database.expanduser().absolute()
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                try:
                    counts = dict(connection.execute(SQL["count_runs"]).fetchall())
                    remembered = connection.execute(SQL["setting"], ("strategy",)).fetchone()
                    strategy = remembered[0] if remembered else strategy
                except sqlite3.DatabaseError:
                    counts = {}  # its tables are not there yet, or it is no database
        return {
            "running": self.is_open,
            "strategy": strategy,
            "pending_flows": counts.get("scheduled", 0),
            "running_flows": counts.get("running", 0),
            "system_load": psutil.cpu_percent(),
        }
