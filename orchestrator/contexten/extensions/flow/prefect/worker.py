"""Our own worker of a work pool: one warm process that makes many attempts at once and begins each within a second."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio

from ..errors import AttemptError
from .api import PrefectApi
from .connection import Connection, trouble_of
from .following import POLL_S, Follower, Watched
from .payload import Verdict
from .publication import FLOW, make_pool, publish
from .signals import heed
from .workshop import Workshop

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

logger = logging.getLogger(__name__)

CONCURRENCY = 10
"""Attempts at once, where nothing else is said."""
_HEARTBEAT_S = 10
_MAX_PAUSE_S = 10.0
_CANCEL_AGAIN_S = 1.0  # some swallow a cancellation
_FAREWELL_S = 1.0
_MAX_MESSAGE = 500  # of a state, as people see it in Prefect


class PoolWorker:
    """Takes attempts from one pool. Other flow runs of the pool are left to Prefect's workers."""

    def __init__(
        self, pool: str, api: PrefectApi, workshop: Workshop, *, concurrency: int = CONCURRENCY, name: str | None = None
    ) -> None:
        self.pool = pool
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.is_ready = asyncio.Event()
        """Set once it takes attempts."""
        self._api = api
        self._workshop = workshop
        self._clock = workshop.clock
        self._concurrency = concurrency
        self._deployment_id: UUID | None = None
        self._foreign: set[UUID | None] = set()
        """Other deployments on the pool."""
        self._hearing: asyncio.Task[None] | None = None
        self._attempts: dict[UUID, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def run(self, stop: anyio.Event) -> None:
        """Work until `stop` is set; then attempts get `stop_grace_s` to end, and the rest is reported as crashed, so
        that it is made again elsewhere. Raises AttemptError and PrefectError where it cannot begin."""
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(Connection(self._api, self._clock))
            if await make_pool(connection, self.pool):
                logger.info("made the work pool %s", self.pool, extra={"action": "make_pool"})
            deployment_id = await publish(connection, self.pool)
            await connection.ask(self._say_hello)
            follower = Follower(connection)
            stack.push_async_callback(self._end_hearing)
            await self._hear(follower, deployment_id)
            for work in (follower.follow(), self._keep_saying_hello(connection)):
                stack.push_async_callback(_end, asyncio.create_task(work, name=f"worker {self.name}"))
            self.is_ready.set()
            waiting = asyncio.create_task(stop.wait())
            waiting.add_done_callback(lambda _: self._wake.set())
            try:
                await self._take_attempts(connection, follower, stop)
            finally:
                waiting.cancel()
                await self._leave(connection)

    async def _hear(self, follower: Follower, deployment_id: UUID) -> None:
        """Take that deployment for ours, and be woken by what happens to its flow runs."""
        self._deployment_id = deployment_id
        await self._end_hearing()
        wake = dict.fromkeys(("Cancelling", "Cancelled", "Crashed"), follower.wake) | {"Scheduled": self._wake.set}
        hearing = heed(self._api.address, deployment_id, wake, self._clock)
        self._hearing = asyncio.create_task(hearing, name=f"events for worker {self.name}")

    async def _end_hearing(self) -> None:
        if self._hearing is not None:
            await _end(self._hearing)
            self._hearing = None

    # Taking
    async def _take_attempts(self, connection: Connection, follower: Follower, stop: anyio.Event) -> None:
        from prefect.exceptions import ObjectNotFound

        pause_s = POLL_S
        while not stop.is_set():
            self._wake.clear()
            try:
                if len(self._attempts) < self._concurrency:
                    await self._look(connection, follower)
                pause_s = POLL_S
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on asking
                if pause_s == POLL_S:
                    is_gone = isinstance(error, ObjectNotFound)
                    told = f"The work pool {self.pool} is gone." if is_gone else trouble_of(error)
                    logger.warning("%s Trying again.", told, extra={"action": "poll"})
                pause_s = min(pause_s * 2, _MAX_PAUSE_S)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self, connection: Connection, follower: Follower) -> None:
        waiting = await connection.once(lambda client: client.get_scheduled_flow_runs_for_work_pool(self.pool))
        for response in waiting:
            flow_run = response.flow_run
            if flow_run.id in self._attempts or not await self._is_ours(connection, follower, flow_run.deployment_id):
                continue
            if len(self._attempts) >= self._concurrency:
                return
            task = asyncio.create_task(self._attempt(connection, follower, flow_run), name=f"attempt {flow_run.name}")
            self._attempts[flow_run.id] = task
            task.add_done_callback(lambda _, key=flow_run.id: self._done(key))  # type: ignore[misc]  # key is bound

    async def _is_ours(self, connection: Connection, follower: Follower, deployment_id: UUID | None) -> bool:
        """Whether that is our deployment, which somebody may have deleted and a server made again."""
        from prefect.exceptions import ObjectNotFound

        if deployment_id != self._deployment_id and deployment_id not in self._foreign:
            name = f"{FLOW}/{self.pool}"
            with suppress(ObjectNotFound):
                found = (await connection.once(lambda client: client.read_deployment_by_name(name))).id
                if found != self._deployment_id:
                    await self._hear(follower, found)
                if found != deployment_id:
                    self._foreign.add(deployment_id)
        return deployment_id == self._deployment_id

    def _done(self, flow_run_id: UUID) -> None:
        del self._attempts[flow_run_id]
        self._wake.set()

    # Attempts
    async def _attempt(self, connection: Connection, follower: Follower, flow_run: FlowRun) -> None:
        from prefect.states import Crashed

        try:
            if await self._claim(connection, flow_run.id):
                logger.info("begins %s", flow_run.name, extra={"action": "begin"})
                state = await self._make(connection, follower, flow_run)
                if state is not None:
                    await self._report(connection, flow_run.id, state)
                logger.info("ended %s: %s", flow_run.name, state.name if state else "given up", extra={"action": "end"})
        except asyncio.CancelledError:
            with suppress(Exception):  # it ends in any case; without a word it is given up for dead
                async with asyncio.timeout(_FAREWELL_S):
                    state = Crashed(message="The worker was stopped.")
                    await connection.once(lambda client: client.set_flow_run_state(flow_run.id, state))
            raise
        except AttemptError as error:  # the API stayed away; whoever follows the attempt gives it up as well
            logger.warning("%s: %s", flow_run.name, error.message, extra={"action": "attempt"})
        except Exception:
            logger.exception("the attempt %s is lost", flow_run.name, extra={"action": "attempt"})

    async def _claim(self, connection: Connection, flow_run_id: UUID) -> bool:
        """Make the flow run ours; answers False where another worker has it, or nobody is to have it now.

        Prefect lets one only go from scheduled to pending. A request that is repeated because its answer was lost is
        recognised, and rejected with our own state.
        """
        from prefect.client.schemas.responses import SetStateStatus
        from prefect.states import Pending, Running

        result = await connection.propose(flow_run_id, Pending())
        is_ours = result.status is SetStateStatus.ACCEPT or (
            result.status is SetStateStatus.REJECT and result.state is not None and result.state.is_pending()
        )
        if not is_ours:
            return False
        result = await connection.propose(flow_run_id, Running())
        return result.state is not None and result.state.is_running()

    async def _make(self, connection: Connection, follower: Follower, flow_run: FlowRun) -> State[Any] | None:
        """Make the attempt; the state in which it ends, None where that was decided by others."""
        from prefect.states import Cancelled, Completed, Failed

        given = flow_run.parameters
        work: asyncio.Task[Verdict] = asyncio.create_task(
            self._workshop.perform(connection, flow_run.id, given.get("attempt"), given.get("pieces"))
        )
        with follower.watch(flow_run.id) as watched:
            watching = asyncio.create_task(_until_called_off(watched))
            try:
                await asyncio.wait([work, watching], return_when=asyncio.FIRST_COMPLETED)
                is_called_off = watching.done() and not work.done()
            finally:  # on cancellation as well: the worker is stopping
                watching.cancel()
                while not work.done():
                    work.cancel()
                    await _settle(work)
        if is_called_off:
            return Cancelled(message="The worker ended the attempt.") if _is_cancelling(watched) else None
        verdict = work.result()
        if verdict.failure is None:
            return Completed()
        return Failed(message=verdict.failure.message[:_MAX_MESSAGE])

    async def _report(self, connection: Connection, flow_run_id: UUID, state: State[Any]) -> None:
        from prefect.states import Cancelled

        result = await connection.propose(flow_run_id, state)
        if result.state is not None and result.state.is_cancelling():  # it was called off in the last moment
            await connection.propose(flow_run_id, Cancelled(message="The attempt had ended already."))

    # Presence
    async def _say_hello(self, client: PrefectClient) -> None:
        await client.send_worker_heartbeat(self.pool, self.name, heartbeat_interval_seconds=_HEARTBEAT_S)

    async def _keep_saying_hello(self, connection: Connection) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_S)
            with suppress(Exception):  # which the polling tells of
                await connection.once(self._say_hello)

    async def _leave(self, connection: Connection) -> None:
        if self._attempts:
            await asyncio.wait(self._attempts.values(), timeout=self._workshop.settings.stop_grace_s)
        rest = list(self._attempts.values())
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=2 * _FAREWELL_S)
        with suppress(Exception):  # it leaves in any case
            async with asyncio.timeout(_FAREWELL_S):
                await connection.once(self._say_goodbye)

    async def _say_goodbye(self, client: PrefectClient) -> None:
        path = {"work_pool_name": self.pool, "name": self.name}
        await client.request("DELETE", "/work_pools/{work_pool_name}/workers/{name}", path_params=path)


def _is_cancelling(watched: Watched) -> bool:
    return watched.run is not None and watched.run.state is not None and watched.run.state.is_cancelling()


async def _until_called_off(watched: Watched) -> None:
    """Until somebody ended the flow run, or wants it ended."""
    while True:
        await watched.look(None)
        state = watched.run.state if watched.run is not None else None
        if watched.is_gone or (state is not None and (state.is_cancelling() or state.is_final())):
            return


async def _settle(work: asyncio.Task[Any]) -> None:
    await asyncio.wait([work], timeout=_CANCEL_AGAIN_S)


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
