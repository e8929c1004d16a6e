"""The flow that Prefect's workers run for a published flow: it enters a run in the journal and follows it to its end.

It imports Prefect when it is imported: a worker's process does nothing else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
from prefect import flow, get_run_logger
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled

from ..actor import Actor
from ..errors import FlowError
from ..service import FlowService
from ..settings import FlowSettings
from ..states import RunState
from ..store.servers import drivers_of
from ..views import RunView

if TYPE_CHECKING:
    from logging import Logger

LOOK_S = 2.0  # between questions whether the run was cancelled in Prefect, and whether a server still drives it
FAREWELL_S = 10.0  # for a cancellation to be recorded; a worker's process has 30
MAX_SHOWN = 20_000  # characters of an output that Prefect shows


class PublishedRunFailed(Exception):
    """The run failed; the message says why."""


@flow(name="contexten-flow published", persist_result=False, validate_parameters=False)
async def published_flow(inputs: dict[str, Any] | None = None) -> Any:
    """Run the flow version that the deployment names, once for each flow run, and answer its output.

    Where a server drives the database it drives the run; else this process does. Raises PublishedRunFailed.
    """
    logger: Any = get_run_logger()
    follower = _Follower(FlowSettings(), UUID(flow_run.get_id()), logger)
    return await follower.follow(deployment.get_name() or "", int(deployment.get_version() or 0), inputs or {})


class _Follower:
    """One flow run and the run that it stands for."""

    def __init__(self, settings: FlowSettings, id_: UUID, logger: Logger) -> None:
        self._settings = settings
        self._id = id_
        self._logger = logger
        self._is_away = False
        """Whether it was said that Prefect does not answer."""
        self._actor = Actor(client="prefect", transport="prefect", tool=str(id_))

    async def follow(self, flow_id: str, version: int, inputs: dict[str, Any]) -> Any:
        """Enter the run, unless it is there, and wait for its end; answers what Prefect makes a state of."""
        while True:
            drives = not drivers_of(self._settings.database)
            holder = f"prefect flow run {self._id}"
            async with FlowService(self._settings, drive=drives, holder=holder) as service:
                run = await service.execute_flow(
                    flow_id=flow_id,
                    version=version,
                    inputs=inputs,
                    idempotency_key=f"prefect:{self._id}",
                    actor=self._actor,
                )
                if not run.existing:
                    self._logger.info("entered as run %s of flow %s", run.run_id, flow_id)
                run = await self._wait(service, run.run_id, drives=drives)
                if RunState(run.state).is_terminal:
                    return await self._end(service, run)

    async def _wait(self, service: FlowService, run_id: str, *, drives: bool) -> RunView:
        """Until the run has ended, or nobody drives it any more."""
        try:
            while True:
                run = await service.wait(run_id, timeout_s=LOOK_S)
                if RunState(run.state).is_terminal or not (drives or drivers_of(self._settings.database)):
                    return run
                await self._heed(service, run_id)
        except BaseException:  # a worker ends the process of a flow run that was cancelled
            with anyio.move_on_after(FAREWELL_S, shield=True):
                await self._heed(service, run_id)
            raise

    async def _heed(self, service: FlowService, run_id: str) -> None:
        """Cancel the run if its flow run was cancelled."""
        state = await self._state()
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            try:
                await service.control(run_id, "cancel", reason="cancelled in Prefect", actor=self._actor)
                await service.wait(run_id, timeout_s=FAREWELL_S)
            except FlowError as error:
                self._logger.warning("the run %s could not be cancelled: %s", run_id, error.message)

    async def _state(self) -> State[Any] | None:
        """The flow run's state; None while Prefect does not tell, which the run does not mind."""
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                async with get_client() as client:
                    state = (await client.read_flow_run(self._id)).state
        except Exception as error:  # noqa: BLE001 - whatever Prefect answers, the run goes on
            if not self._is_away:
                self._is_away = True
                self._logger.warning("Prefect does not tell whether the run was cancelled: %s", type(error).__name__)
            return None
        self._is_away = False
        return state

    async def _end(self, service: FlowService, run: RunView) -> State[Any] | Any:
        if run.state == RunState.CANCELLED:
            return Cancelled(message=run.reason or "cancelled")
        if run.state == RunState.FAILED:
            error = run.error
            raise PublishedRunFailed(f"{error.kind}: {error.message}" if error is not None else "failed")
        output = await service.run_output(run.run_id)
        shown = output if len(output) <= MAX_SHOWN else f"{output[:MAX_SHOWN]} ... ({len(output)} characters)"
        await acreate_markdown_artifact(
            key="contexten-flow-output",
            markdown=f"Run `{run.run_id}` of flow `{run.flow_id}`, version {run.version}\n\n```json\n{shown}\n```\n",
            description="What the run put out",
        )
        return json.loads(output)
