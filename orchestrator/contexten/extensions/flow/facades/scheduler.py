"""FlowScheduler: the queue from Python."""

from __future__ import annotations

from typing import Any

from ..clock import SystemClock
from ..execution.machine_load import MachineLoad
from ..recovery.executor import FlowExecutor
from ..service import FlowService
from ..settings import FlowSettings
from ..store.reading import glance
from ..strategies import SchedulingStrategy
from .facade import Facade


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
        """Without a `strategy` the database's remembered one holds. With `enable_load_balancing` each task goes to the
        least loaded of several able agents; else the strategy decides. Raises InvalidArguments."""
        super().__init__(
            agents,
            settings=settings,
            executor=executor,
            strategy=strategy,
            max_concurrent_flows=max_concurrent_flows,
        )
        self.enable_load_balancing = enable_load_balancing
        self._load = MachineLoad(SystemClock())

    async def service(self) -> FlowService:
        """The core, opened on first use. Raises StoreError where the database cannot be used."""
        service = await super().service()
        if self.enable_load_balancing:
            service.balance_load()
        return service

    async def schedule_flow(
        self,
        workflow: object = None,
        workflow_def: object | None = None,
        priority: int | str | None = None,
        deadline: object | None = None,
        dependencies: list[str] | None = None,
        *,
        inputs: dict[str, Any] | None = None,
        framework: str | None = "auto",
        timeout_s: float | None = None,
        on_deadline: str = "continue",
        on_dependency_failure: str = "fail",
    ) -> dict[str, Any]:
        """Queue a run; answers `run_id`, `flow_id`, `state`.

        `deadline` is a time (naive: local) or a number of seconds from now; what is not done by then is journaled, and
        cancelled with `on_deadline="cancel"`. `dependencies` are ids of runs, or of flows (their latest run, else their
        first one to come): the run starts when they have completed, and fails when one of them did not, unless
        `on_dependency_failure` is "run".

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
            on_deadline=on_deadline,
            on_dependency_failure=on_dependency_failure,
            framework=framework,
            timeout_s=timeout_s,
        )
        return run.data()

    def get_scheduler_status(self) -> dict[str, Any]:
        """How the queue stands now: `running` (whether it takes runs), `pending_flows`, `running_flows`, `strategy`,
        `system_load` (0 to 100). Answers before `start()` too."""
        counts, strategy = glance(self.settings.database.expanduser())
        return {
            "running": self.is_open,
            "strategy": strategy or self._strategy or self.settings.strategy,
            "pending_flows": counts.get("scheduled", 0),
            "running_flows": counts.get("running", 0),
            "system_load": round(self._load.read() * 100, 1),
        }
