"""FlowOrchestrator: submitting runs and watching the machine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import anyio
import psutil

from ..clock import SystemClock
from ..errors import Closing, FlowTimeout, IllegalMove
from ..execution.machine_load import MachineLoad
from ..recovery.executor import FlowExecutor
from ..runs.submission import check_timeout
from ..service import FlowService
from ..settings import FlowSettings
from ..states import RunState
from ..store.reading import glance
from .facade import Facade


class FlowOrchestrator(Facade):
    """Submits runs, executes them to the end, and tells how the orchestrator fares."""

    def __init__(
        self,
        agents: Any = None,
        max_concurrent_flows: int | None = None,
        enable_monitoring: bool = True,
        *,
        executor: FlowExecutor | None = None,
        settings: FlowSettings | None = None,
    ) -> None:
        """`enable_monitoring=False` leaves the machine's load out of the status: it is None there. Raises TypeError or
        ValueError where `agents` are none."""
        super().__init__(
            agents,
            settings=settings,
            executor=executor,
            max_concurrent_flows=max_concurrent_flows,
        )
        self._monitors = enable_monitoring
        self._load = MachineLoad(SystemClock())

    async def submit_flow(
        self,
        name: str | None = None,
        workflow_def: object | None = None,
        priority: int | str | None = None,
        framework: str | None = "auto",
        *,
        flow_id: str | None = None,
        inputs: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Record a run durably and answer at once: `run_id`, `flow_id`, `state`. Raises as
        `FlowManager.execute_flow`."""
        service = await self.service()
        run = await service.execute_flow(
            flow_id=flow_id,
            workflow_def=workflow_def,
            name=name,
            inputs=inputs,
            priority=priority,
            framework=framework,
            timeout_s=timeout_s,
            idempotency_key=idempotency_key,
        )
        return run.data()

    async def execute_flow_sync(
        self,
        name: str | None = None,
        workflow_def: object | None = None,
        timeout: float | None = None,
        *,
        flow_id: str | None = None,
        inputs: dict[str, Any] | None = None,
        priority: int | str | None = None,
        framework: str | None = "auto",
    ) -> dict[str, Any]:
        """Run a flow to its end; answers the run with its `output`. Raises FlowTimeout after `timeout` seconds, when
        the run has been cancelled."""
        check_timeout(timeout)
        service = await self.service()
        run = await service.execute_flow(
            flow_id=flow_id, workflow_def=workflow_def, name=name, inputs=inputs, priority=priority, framework=framework
        )
        await self._wait_for_end(service, run.run_id, timeout)
        with_output = await service.get_run(run.run_id, detail="output")
        return {"output": None, **with_output.data()}

    async def _wait_for_end(self, service: FlowService, run_id: str, timeout: float | None) -> None:
        """Wait for the end, a pause included, and cancel the run where it does not come in time."""
        with anyio.move_on_after(timeout):
            while not RunState((await service.wait(run_id)).state).is_terminal:
                if not service.is_open:
                    raise Closing(f"The service closed while the run {run_id} was under way; it goes on later.")
                await service.wait(run_id, until="change")
            return
        with suppress(IllegalMove):  # it ended just now
            await service.control(run_id, "cancel", reason=f"not done within {timeout:g} s")
        ended = await service.wait(run_id, timeout_s=self.settings.cancel_grace_s + 5)
        if ended.state == RunState.CANCELLED or not RunState(ended.state).is_terminal:
            raise FlowTimeout(
                f"The run {run_id} was not done within {timeout:g} s and was cancelled.",
                next=f"Allow more time, or look at it: get_flow_status({run_id!r}).",
            )

    async def get_orchestrator_status(self) -> dict[str, Any]:
        """`status` ("running" or "stopped") and `resource_usage`: what the database holds, whether or not this is
        started (all 0 where there is no database yet), and `cpu_percent` and `memory_percent` of the machine, None with
        `enable_monitoring=False`. `agents` are none while it is stopped."""
        agents: list[dict[str, Any]] = []
        if self.is_open:
            service = await self.service()
            runs = await service.runs_by_state()
            agents = [agent.data() for agent in (await service.agents()).agents]
        else:
            runs, _ = await asyncio.to_thread(glance, self.settings.database.expanduser())
        completed, failed = runs.get("completed", 0), runs.get("failed", 0)
        usage = {
            "active_flows": runs.get("running", 0),
            "queued": runs.get("scheduled", 0),
            "total_completed": completed,
            "total_failed": failed,
            "success_rate": completed / (completed + failed) if completed + failed else 0.0,
            "agents": agents,
            "cpu_percent": round(self._load.read() * 100, 1) if self._monitors else None,
            "memory_percent": psutil.virtual_memory().percent if self._monitors else None,
        }
        return {"status": "running" if self.is_open else "stopped", "resource_usage": usage}
