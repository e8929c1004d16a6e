"""Attempts made on other machines: submitted to a Prefect work pool, followed, cancelled, and given up for dead.

Nothing is shared with a worker but Prefect's API. The attempt's id is the idempotency key, so that the same attempt
after a crash of this process is found again and not repeated.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import httpx

from ..agents.protocol import AttemptContext, Ending, Json, TaskCall, Traits
from ..agents.reserved import POOL_PREFIX
from ..clock import Clock
from ..errors import AttemptError
from ..recovery.kinds import INTERRUPTED, INVALID
from .api import PrefectApi, PrefectError
from .connection import PATIENCE_S, Connection, attempt_error
from .following import Follower, Watched
from .payload import PoolAttempt, SecretReferences
from .pieces import ATTEMPT, store
from .publication import find_pool, publish
from .signals import ENDS, heed
from .tracking import Tracking

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

logger = logging.getLogger(__name__)

T = TypeVar("T")

CAPACITY = 1000
"""Attempts followed at once: the pool's workers and limits decide how many are made at once."""
MAX_PARAMETER_BYTES = 400_000  # Prefect's limit is 524,288; more goes in pieces
CANCEL_WAIT_S = 3.0  # for the worker to say that the attempt ended; less than what the core waits
FAREWELL_S = 1.0
_MAX_REPEATS = 20


@dataclass(slots=True, eq=False)
class _Session:
    """What is held open while the agent is in use."""

    connection: Connection
    deployment_id: UUID
    follower: Follower
    stack: AsyncExitStack
    users: int = 0
    is_retired: bool = False
    """Another took its place; it is closed when the last has left it."""


class PoolAgent:
    """Makes attempts of every kind on the workers of one work pool."""

    agent_type = "worker"
    tools: Sequence[str] = ()
    capacity = CAPACITY

    def __init__(
        self,
        pool: str,
        api: Callable[[], Awaitable[PrefectApi]],
        clock: Clock,
        *,
        lease_ttl_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`api` is asked for the API when it is first needed. A worker that says nothing for `lease_ttl_s` is dead; an
        API that does not answer for `patience_s` fails the attempts that need it."""
        self.name = f"{POOL_PREFIX}{pool}"
        self.pool = pool
        self._references = SecretReferences()
        # it is told what is around a task: the worker may hand it to a model
        self.traits = Traits(knows_surroundings=True, secrets=self._references.text)
        self._api = api
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self._patience_s = patience_s
        self._opening = asyncio.Lock()
        self._sessions: list[_Session] = []
        """The last is the one in use, unless it is retired."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """What outlives the attempt that began it: submissions, cancellations."""

    # Attempts
    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """Raises AttemptError: what the worker tells of the attempt; `interrupted` where the worker died, `network`
        where Prefect's API stays away, `invalid` where it refuses, or where somebody cancelled the flow run there."""
        held = ExitStack()
        session = await self._opened(context)
        held.enter_context(self._using(session))
        submission = self._spawn(self._submit(held, session, task, context), f"submit {context.attempt_id}")
        try:
            session, flow_run = await asyncio.shield(submission)
            with session.follower.watch(flow_run.id) as watched:
                page = session.connection.api.address.flow_run_page(flow_run.id)
                context.log("info", f"submitted to work pool {self.pool}: {page}")
                tracking = Tracking(
                    session.connection, self.pool, flow_run.id, watched, context, lease_ttl_s=self._lease_ttl_s
                )
                return await tracking.outcome()
        except asyncio.CancelledError:  # where this process stops, a submission still ends: the next one finds it
            if context.ending in (Ending.CANCELLED, Ending.TIMED_OUT):
                await self._take_back(submission)
            raise
        finally:
            if submission.done():
                held.close()
            else:
                submission.add_done_callback(lambda _: held.close())

    async def _submit(
        self, held: ExitStack, session: _Session, task: TaskCall, context: AttemptContext
    ) -> tuple[_Session, FlowRun]:
        """The flow run of the attempt, and the session that knows it; `held` holds the session open."""
        from prefect.exceptions import ObjectNotFound

        try:
            return session, await self._create(session, task, context)
        except ObjectNotFound:  # somebody deleted the deployment: it is made anew
            self._retire(session)
        session = await self._opened(context)
        held.enter_context(self._using(session))
        try:
            return session, await self._create(session, task, context)
        except ObjectNotFound:
            raise AttemptError(
                f"Prefect's deployment for the work pool {self.pool} is deleted as soon as it is made.", kind=INVALID
            ) from None

    async def _create(self, session: _Session, task: TaskCall, context: AttemptContext) -> FlowRun:
        """The flow run of the attempt: the one that an earlier process submitted, where that is of use."""
        if task.type == "tool":
            task = replace(task, upstream={})  # tools are told nothing of it
        attempt = PoolAttempt(task=task, context=context, mark=self._references.mark, lease_ttl_s=self._lease_ttl_s)
        text = attempt.as_text()
        parameters: dict[str, Any] = {"attempt": text}
        if len(json.dumps(text).encode()) > MAX_PARAMETER_BYTES:
            parameters = {"pieces": await store(session.connection, text, ATTEMPT)}
        for repeat in range(_MAX_REPEATS):
            key = context.attempt_id if repeat == 0 else f"{context.attempt_id}#{repeat}"
            flow_run = await session.connection.ask(
                partial(_create_flow_run, session.deployment_id, parameters, key, context),
                on_trouble=partial(_tell, context),
            )
            if flow_run.state is None or not (
                flow_run.state.is_cancelled() or flow_run.state.is_cancelling() or flow_run.state.is_crashed()
            ):
                return flow_run
        raise AttemptError(
            f"{_MAX_REPEATS} flow runs of this attempt were cancelled or crashed before it could be followed.",
            kind=INTERRUPTED,
        )

    async def _take_back(self, submission: asyncio.Task[tuple[_Session, FlowRun]]) -> None:
        """Cancel the flow run; wait a little for its worker to end the attempt. It goes on if that takes longer."""
        await asyncio.wait([self._spawn(self._cancel(submission), "cancel a flow run")], timeout=CANCEL_WAIT_S)

    async def _cancel(self, submission: asyncio.Task[tuple[_Session, FlowRun]]) -> None:
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Cancelled, Cancelling

        try:
            session, flow_run = await submission
            with self._using(session), session.follower.watch(flow_run.id) as watched:
                state: State[Any] = Cancelling(message="The attempt was cancelled or timed out.")
                await session.connection.propose(flow_run.id, state)
                while not _is_over(watched) and watched.troubled_s < self._patience_s:
                    await watched.look(CANCEL_WAIT_S)
                    if watched.trouble is None and watched.silent_s() > self._lease_ttl_s:  # nobody is left to end it
                        end: State[Any] = Cancelled(message="Its worker gave no sign of life.")
                        await session.connection.propose(flow_run.id, end)
        except (AttemptError, ObjectNotFound) as error:
            logger.warning("a flow run could not be cancelled: %s", error, extra={"action": "cancel"})

    def _spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Do what may outlive the attempt, but not the agent."""
        task = asyncio.create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, AttemptError):  # that is the attempt's to tell
            logger.error("%s failed", task.get_name(), exc_info=error, extra={"action": "pool"})

    # Opening and closing
    async def _opened(self, context: AttemptContext) -> _Session:
        """A session with the API as it is configured now. Raises AttemptError."""
        async with self._opening:
            try:
                api = await self._api()
            except PrefectError as error:
                raise attempt_error(error) from error
            if self._sessions and not self._sessions[-1].is_retired:
                if self._sessions[-1].connection.api.address == api.address:
                    return self._sessions[-1]
                self._retire(self._sessions[-1])
            async with AsyncExitStack() as stack:
                try:
                    connection = Connection(api, self._clock, patience_s=self._patience_s)
                    await stack.enter_async_context(connection)
                except PrefectError as error:
                    raise attempt_error(error) from error
                await find_pool(connection, self.pool, on_trouble=partial(_tell, context))
                session = _Session(connection, await publish(connection, self.pool), Follower(connection), stack)
                wake = dict.fromkeys(ENDS, session.follower.wake)
                for work in (
                    session.follower.follow(),
                    heed(api.address, session.deployment_id, wake, self._clock),
                ):
                    stack.push_async_callback(_end, asyncio.create_task(work, name=f"follow {self.name}"))
                session.stack = stack.pop_all()
                self._sessions.append(session)
                return session

    @contextmanager
    def _using(self, session: _Session) -> Iterator[None]:
        session.users += 1
        try:
            yield
        finally:
            session.users -= 1
            self._let_go(session)

    def _retire(self, session: _Session) -> None:
        """Open another for the next attempt; those under way keep what they have."""
        session.is_retired = True
        self._let_go(session)

    def _let_go(self, session: _Session) -> None:
        if session.is_retired and session.users == 0 and session in self._sessions:
            self._sessions.remove(session)
            self._spawn(session.stack.aclose(), "close")

    async def reinitialize(self) -> None:
        """Look for pool and deployment again before the next attempt; attempts under way keep what they have."""
        for session in list(self._sessions):
            self._retire(session)

    async def aclose(self) -> None:
        """Let go of the API; flow runs go on, unless they were being cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL_S)
        for task in list(self._tasks):
            await _end(task)
        async with self._opening:
            sessions, self._sessions = self._sessions, []
            for session in sessions:
                await session.stack.aclose()


def _tell(context: AttemptContext, error: PrefectError) -> None:
    context.log("warning", f"{error.message} Trying again.")


def _is_over(watched: Watched) -> bool:
    if watched.is_gone:
        return True
    return watched.run is not None and watched.run.state is not None and watched.run.state.is_final()


async def _create_flow_run(
    deployment_id: UUID, parameters: dict[str, Any], key: str, context: AttemptContext, client: PrefectClient
) -> FlowRun:
    from prefect.exceptions import ObjectNotFound

    tags = ["contexten-flow", f"flow:{context.flow_id}", f"run:{context.run_id}", f"task:{context.task}"]
    try:
        return await client.create_flow_run_from_deployment(
            deployment_id, parameters=parameters, name=key, tags=tags, idempotency_key=key
        )
    except httpx.HTTPStatusError as error:  # for which Prefect has no name here
        if error.response.status_code == httpx.codes.NOT_FOUND:
            raise ObjectNotFound(error) from error
        raise


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
