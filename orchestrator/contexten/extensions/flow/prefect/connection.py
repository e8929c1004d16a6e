"""One open client of Prefect's API that outlives the API's bad moments: a restart, a 503, a network that comes and
goes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from ..clock import Clock
from ..errors import AttemptError
from ..recovery.kinds import INVALID, NETWORK
from .api import UNSERVED, PrefectApi, PrefectError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas import OrchestrationResult
    from prefect.client.schemas.objects import State

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long the API may be away before an attempt is given up: longer than a restart or an upgrade takes."""
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 10.0


class Connection:
    """Holds a client open in a task of its own, so that any task may use it.

    `async with` opens and closes it. Raises PrefectError where Prefect's own settings are wrong; whether the API is
    there shows at the first request.
    """

    def __init__(self, api: PrefectApi, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        self.api = api
        self.clock = clock
        self.patience_s = patience_s
        self._close = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        ready: asyncio.Future[tuple[PrefectClient, contextvars.Context]] = asyncio.get_running_loop().create_future()
        self._holder = asyncio.create_task(self._hold(ready), name="connection to Prefect")
        try:
            self.client, self._context = await ready
        except BaseException:
            self._holder.cancel()
            await asyncio.gather(self._holder, return_exceptions=True)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close.set()
        if self._holder is not None:
            await asyncio.wait([self._holder])

    async def _hold(self, ready: asyncio.Future[tuple[PrefectClient, contextvars.Context]]) -> None:
        try:
            async with self.api.client() as client:
                if not ready.done():  # else nobody waits for it any more
                    ready.set_result((client, contextvars.copy_context()))
                    await self._close.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def once(self, call: Callable[[PrefectClient], Awaitable[T]]) -> T:
        """The answer to one request. Raises PrefectError, and what Prefect gives names of its own."""
        try:
            # Prefect's client takes its own retries from the context: here it makes none.
            return await asyncio.create_task(_answer(call, self.client), context=self._context)
        except UNSERVED as error:
            raise self.api.problem(error) from error

    async def ask(
        self,
        call: Callable[[PrefectClient], Awaitable[T]],
        *,
        on_trouble: Callable[[PrefectError], None] = lambda error: None,
    ) -> T:
        """The answer to a request that is repeated while it fails for a reason that may pass, for `patience_s` at most.

        `on_trouble` is told of the first failure. Raises AttemptError, and what Prefect gives names of its own.
        """
        begun, delay_s = self.clock.monotonic(), _FIRST_DELAY_S
        has_told = False
        while True:
            try:
                return await self.once(call)
            except PrefectError as error:
                if error.is_lasting or self.clock.monotonic() - begun + delay_s > self.patience_s:
                    raise attempt_error(error) from error
                if not has_told:
                    has_told = True
                    on_trouble(error)
                pause_s = error.retry_after_s or delay_s * (0.75 + self.clock.random() / 2)
            await self.clock.sleep(pause_s)
            delay_s = min(delay_s * 2, _MAX_DELAY_S)

    async def propose(self, flow_run_id: UUID, state: State[Any]) -> OrchestrationResult[Any]:
        """What became of a proposed state. Raises AttemptError, and Prefect's ObjectNotFound."""
        return await self.ask(lambda client: client.set_flow_run_state(flow_run_id, state))


def attempt_error(error: PrefectError) -> AttemptError:
    """The failure of an attempt that Prefect's API did not serve: `network`, or `invalid` where it never will."""
    text = f"{error.message} {error.next}" if error.next else error.message
    return AttemptError(text, kind=INVALID if error.is_lasting else NETWORK)


def trouble_of(error: Exception) -> PrefectError:
    """What a failure of a request means to those who go on asking. One that nobody foresaw is logged whole."""
    from prefect.exceptions import PrefectException

    if isinstance(error, PrefectError):
        return error
    if isinstance(error, PrefectException):
        return PrefectError(f"Prefect's API refused a request: {error}")
    logger.warning("an answer of Prefect's API cannot be read", exc_info=error, extra={"action": "ask"})
    return PrefectError(f"Prefect's API answers what cannot be read ({type(error).__name__}).")


async def _answer(call: Callable[[PrefectClient], Awaitable[T]], client: PrefectClient) -> T:
    return await call(client)
