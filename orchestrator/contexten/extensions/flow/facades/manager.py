"""FlowManager: flows from Python."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..actor import PYTHON
from ..answers.paging import DEFAULT_PAGE
from ..engines.choice import how_to_install, installed_version
from ..errors import RunNotFound
from ..recovery.executor import FlowExecutor
from ..service import FlowService
from ..settings import FlowSettings
from ..views import Action, Detail
from .facade import Facade

logger = logging.getLogger(__name__)


class FlowManager(Facade):
    """Create, run and watch flows. Answers are dictionaries of JSON data, as the tools of the server give them."""

    def __init__(
        self,
        agents: Any = None,
        enable_prefect: bool | None = None,
        enable_controlflow: bool | None = None,
        *,
        executor: FlowExecutor | None = None,
        settings: FlowSettings | None = None,
    ) -> None:
        """`enable_X=False` forbids that engine even by name; True lets `framework="auto"` choose it, where it is
        installed (a warning says if it is not).
        Raises TypeError or ValueError where `agents` are none."""
        super().__init__(agents, settings=settings, executor=executor)
        self._enabled = {"prefect": enable_prefect, "controlflow": enable_controlflow}
        for name, is_enabled in self._enabled.items():
            if is_enabled and installed_version(name) is None:
                hint = how_to_install(name)
                logger.warning("the engine %s is not installed (%s); runs use the native one", name, hint)

    async def service(self) -> FlowService:
        """The core, opened on first use. Raises StoreError where the database cannot be used."""
        service = await super().service()
        for name, is_enabled in self._enabled.items():
            if is_enabled:
                service.enable_engine(name)
        return service

    async def create_flow(
        self,
        name: str | None = None,
        workflow_def: object = None,
        *,
        description: str | None = None,
        flow_id: str | None = None,
        validate_only: bool = False,
    ) -> dict[str, Any]:
        """Check a definition (a dictionary or JSON text) and save it; answers its `flow_id`, `version`, plan and
        warnings. Raises InvalidDefinition with all its problems, FlowExists."""
        service = await self.service()
        saved = await service.create_flow(
            name=name,
            workflow_def=workflow_def,
            description=description,
            flow_id=flow_id,
            validate_only=validate_only,
        )
        return saved.data()

    async def update_flow(
        self, flow_id: str, workflow_def: object | None = None, *, patch: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Save a new version, whole or as an RFC 6902 patch. Raises FlowNotFound, InvalidArguments,
        InvalidDefinition."""
        service = await self.service()
        return (await service.update_flow(flow_id, workflow_def=workflow_def, patch=patch)).data()

    async def execute_flow(
        self,
        flow_id: str | None = None,
        *,
        workflow_def: object | None = None,
        inputs: Mapping[str, Any] | None = None,
        priority: int | str | None = None,
        deadline: object | None = None,
        dependencies: list[str] | None = None,
        on_deadline: str = "continue",
        on_dependency_failure: str = "fail",
        framework: str | None = "auto",
        work_pool: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Run a flow and wait for its end; answers the run with its `state` and, where it completed, its `output`.

        `timeout_s` bounds the run. A failed run is an answer, not an exception. Cancelling this call does not cancel
        the run. `work_pool` is the Prefect work pool whose workers run it, with framework="prefect".

        Raises FlowNotFound, InvalidDefinition, InvalidInputs, IdempotencyConflict, EngineUnavailable.
        """
        service = await self.service()
        run = await service.run_flow(
            flow_id=flow_id,
            workflow_def=workflow_def,
            inputs=inputs,
            priority=priority,
            deadline=deadline,
            dependencies=dependencies,
            on_deadline=on_deadline,
            on_dependency_failure=on_dependency_failure,
            framework=framework,
            work_pool=work_pool,
            forbidden_engines=[name for name, is_enabled in self._enabled.items() if is_enabled is False],
            timeout_s=timeout_s,
            idempotency_key=idempotency_key,
        )
        return {"output": None, **run.data()}

    async def get_flow_status(
        self,
        id: str,
        *,
        detail: Detail = "summary",
        task: str | None = None,
        since: str | None = None,
    ) -> dict[str, Any]:
        """A run, or a flow's latest run; a flow without runs is `idle`. Raises FlowNotFound, RunNotFound."""
        service = await self.service()
        try:
            return (await service.get_run(id, detail=detail, task=task, since=since)).data()
        except RunNotFound:
            if id.startswith("run_"):
                raise
        latest = await service.latest_run_id(id)
        if latest is not None:
            return (await service.get_run(latest, detail=detail, task=task, since=since)).data()
        return (await service.get_flow(id)).data()

    async def list_flows(
        self,
        status_filter: str | None = None,
        limit: int | None = None,
        *,
        kind: Literal["flows", "runs"] = "flows",
        flow_id: str | None = None,
        tag: str | None = None,
    ) -> list[dict[str, Any]]:
        """The newest flows (each with its latest run), or runs; 20 unless `limit` says else, at most 200. Raises
        InvalidArguments."""
        service = await self.service()
        limit = DEFAULT_PAGE if limit is None else limit
        if kind == "runs":
            runs = await service.list_runs(status=status_filter, flow_id=flow_id, tag=tag, limit=limit)
            return [run.data() for run in runs.runs]
        flows = await service.list_flows(status=status_filter, tag=tag, limit=limit)
        return [flow.data() for flow in flows.flows]

    async def control_flow(
        self,
        run_id: str,
        action: Action,
        *,
        task: str | None = None,
        version: int | None = None,
        timeout_s: float | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Cancel, pause, resume, retry or rerun_from; of the last two `timeout_s` bounds the new run, not the old
        one's limit. Raises RunNotFound, IllegalMove, TaskNotFound, InvalidArguments."""
        service = await self.service()
        result = await service.control(run_id, action, task=task, version=version, timeout_s=timeout_s, reason=reason)
        return result.data()

    async def publish_flow(self, flow_id: str, *, pool: str, version: int | None = None) -> dict[str, Any]:
        """Make a version of a flow (the latest by default) a Prefect deployment on that work pool; answers its
        `deployment`, as `prefect deployment run` takes it, and its page's `url`.

        Raises FlowNotFound, EngineUnavailable, PrefectError.
        """
        service = await self.service()
        return (await service.publish_flow(flow_id, pool=pool, version=version)).data()

    async def create_trigger(
        self,
        flow_id: str,
        kind: str,
        config: Mapping[str, Any] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        filter: str | None = None,  # noqa: A002 - the word of the tools
        name: str | None = None,
        trigger_id: str | None = None,
    ) -> dict[str, Any]:
        """Let events start a flow: `kind` is cron, interval, once, github, linear, slack, webhook, file or flow.
        Answers the trigger with its `trigger_id`; of a hook its `path` and, this once, the `secret` that was made.

        `inputs` are templates and `filter` is CEL, both over `event {kind, type, id, payload, received_at}`.
        Raises FlowNotFound, InvalidArguments.
        """
        service = await self.service()
        created = await service.triggers.create(
            flow_id=flow_id,
            kind=kind,
            config=config,
            inputs=inputs,
            filter=filter,
            name=name,
            trigger_id=trigger_id,
            actor=PYTHON,
        )
        return created.data()

    async def list_triggers(
        self, *, flow_id: str | None = None, kind: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """The newest triggers. Raises InvalidArguments."""
        service = await self.service()
        page = await service.triggers.list(flow_id=flow_id, kind=kind, limit=limit)
        return [trigger.data() for trigger in page.triggers]

    async def delete_trigger(self, trigger_id: str) -> dict[str, Any]:
        """Delete a trigger; runs that it started go on. Raises TriggerNotFound."""
        service = await self.service()
        return (await service.triggers.delete(trigger_id, actor=PYTHON)).data()

    async def test_trigger(
        self, trigger_id: str, *, payload: object = None, type: str | None = None, start: bool = False
    ) -> dict[str, Any]:
        """What a trigger would do about an event: whether it `starts`, and with which `inputs`; with `start` the event
        is really delivered. Raises TriggerNotFound, InvalidArguments."""
        service = await self.service()
        return (await service.triggers.test(trigger_id, payload=payload, type=type, start=start, actor=PYTHON)).data()

    async def explain_flow(
        self, flow_id: str | None = None, *, run_id: str | None = None, workflow_def: object | None = None
    ) -> dict[str, Any]:
        """What a flow will do, or why a run is where it is. Raises FlowNotFound, RunNotFound, InvalidDefinition."""
        service = await self.service()
        return (await service.explain(flow_id=flow_id, run_id=run_id, workflow_def=workflow_def)).data()

    async def backup(self, path: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
        """Copy the database to a file, whoever writes to it meanwhile; the copy is checked before it gets that name.
        Raises InvalidArguments where the name is taken, StoreError."""
        service = await self.service()
        return (await service.backup(Path(path), overwrite=overwrite)).data()
