"""The process around a transport: the service is opened once, and closed in bounded time whatever happens."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from contexten.extensions.flow.errors import FlowError, StoreError
from contexten_resources import LiveUpdates
from contexten_server.assembly import build_server
from contexten_server.opening import Opening
from contexten_server.stopping import Stop, Watchdog
from contexten_tools import App, ToolServer

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.settings import FlowSettings

logger = logging.getLogger(__name__)

_HEAD_START_S = 0.5  # by then a host that lists the tools first has done so


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be served."""

    settings: FlowSettings
    transport: str
    read_only: bool = False
    toolsets: tuple[str, ...] = ("default",)
    strategy: str | None = None
    max_concurrent_flows: int | None = None
    """Both are set once the database is open, and go before what it remembers."""
    lists_first: bool = False
    """Serve the list of tools before the library is imported and the database opened; calls wait for them, and say so
    where the database cannot be used. It is tried again then, so that the server is of use once that is mended."""
    service: Callable[[], AbstractAsyncContextManager[FlowService]] | None = None
    """Opens the service, where another program does."""
    answers_to_the_end: bool = False
    """Whether the transport goes on while the service closes, so that clients are told; else it ends first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An app and the server over it."""

    app: App
    server: ToolServer


Serve = Callable[[Opened, Stop], Awaitable[None]]


def run_process(plan: Plan, serve: Serve) -> None:
    """Open the service, serve until the transport ends or the process is asked to stop, close.

    Raises StoreError where the database cannot be used (with `lists_first` at the end, where no try has succeeded);
    what the transport raises is raised alone, not in a group.
    """
    watchdog = Watchdog()
    try:
        anyio.run(_run, plan, serve, watchdog, backend="asyncio")
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        watchdog.cancel()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _run(plan: Plan, serve: Serve, watchdog: Watchdog) -> None:
    stop = Stop(plan.settings.stop_grace_s, watchdog)
    opening = Opening()
    app = App(
        service=opening.service,
        settings=plan.settings,
        transport=plan.transport,
        read_only=plan.read_only,
        toolsets=plan.toolsets,
    )
    with stop.on_signals(), anyio.CancelScope() as life:
        async with LiveUpdates() as updates, anyio.create_task_group() as group:
            server = build_server(app, updates=updates)
            transport = _Transport(Opened(app=app, server=server), serve, stop)

            async def end_streams() -> None:
                await stop.wait()
                updates.close_streams()

            group.start_soon(end_streams, name="end of subscriptions")
            if plan.lists_first:
                server.on_listed = opening.want_soon
                group.start_soon(transport.run, name="transport")
                await _head_start(opening, stop)
            if not stop.is_asked:
                await anyio.to_thread.run_sync(_import_library)
                gc.freeze()  # what has been imported stays
                gc.enable()
            async with AsyncExitStack() as stack:
                if not stop.is_asked:
                    from contexten.extensions.flow.telemetry.exporting import exporting

                    await stack.enter_async_context(exporting())
                service = await _open_service(plan, opening, stop, stack)
                if service is not None:
                    await updates.start(service)
                    opening.open(service)
                    if not plan.lists_first:
                        group.start_soon(transport.run, name="transport")
                    await (stop.event if plan.answers_to_the_end else transport.ended).wait()
                    # What is cut short then is taken up at the next start: the database is right at every moment.
                    life.deadline = anyio.current_time() + stop.left_s
                elif plan.lists_first and opening.refusal is None:
                    life.deadline = anyio.current_time() + stop.left_s
                    await _check_database(plan)
            stop.service_closed.set()
            if plan.answers_to_the_end and service is not None:
                await transport.ended.wait()
            group.cancel_scope.cancel()
    if life.cancelled_caught:
        logger.warning("The service did not close in time; its runs go on at the next start")
    if transport.failure is not None:
        raise transport.failure
    if opening.refusal is not None:
        raise opening.refusal


async def _open_service(plan: Plan, opening: Opening, stop: Stop, stack: AsyncExitStack) -> FlowService | None:
    """The open service, which `stack` closes; None where the process is to end before it could be opened."""
    while not stop.is_asked:
        try:
            return await stack.enter_async_context(_service(plan) if plan.service is None else plan.service())
        except FlowError as error:
            refusal = error
        except OSError as error:
            refusal = StoreError(f"The database cannot be opened: {error.strerror}.", next="Choose another with --db.")
        if not plan.lists_first:
            raise refusal
        if opening.refusal is None or opening.refusal.message != refusal.message:
            logger.error("The service cannot be opened, and every call answers so: %s", refusal.message)
        opening.refuse(refusal)
        await _first_of(opening.wanted, stop.event)
    return None


async def _check_database(plan: Plan) -> None:
    """That a server could have opened it: a client that left at once, or an operator who tries the command, is told.

    Nothing is driven. Raises StoreError.
    """
    from contexten.extensions.flow.store import Store

    store = Store(plan.settings.database, durability=plan.settings.durability)
    await store.open(drives=True)
    await store.close()


class _Transport:
    """Runs the transport beside the service, which must be closed in order also where the transport fails."""

    def __init__(self, opened: Opened, serve: Serve, stop: Stop) -> None:
        self._opened = opened
        self._serve = serve
        self._stop = stop
        self.ended = anyio.Event()
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Serve until the end, then ask the process to stop."""
        try:
            await self._serve(self._opened, self._stop)
        except Exception as error:  # noqa: BLE001 - raised again when the service is closed
            self.failure = error
        finally:
            self._stop.ask("the transport ended")
            self.ended.set()


async def _head_start(opening: Opening, stop: Stop) -> None:
    """Until the tools were listed, a call waits, the time is over, or the process is to end."""
    with anyio.move_on_after(_HEAD_START_S):
        await _first_of(opening.wanted, stop.event)


async def _first_of(*events: anyio.Event) -> None:
    """Until one of them is set."""
    async with anyio.create_task_group() as group:

        async def until(event: anyio.Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        for event in events:
            group.start_soon(until, event)


def _import_library() -> None:
    """Takes longer than all before it; on a thread, so that the server answers meanwhile."""
    import contexten.extensions.flow.service  # noqa: F401 - what counts is that it is loaded


@asynccontextmanager
async def _service(plan: Plan) -> AsyncIterator[FlowService]:
    from contexten.extensions.flow.actor import Actor
    from contexten.extensions.flow.service import FlowService

    async with FlowService(plan.settings, holder=f"contexten-flow serve ({plan.transport})") as service:
        if plan.strategy is not None or plan.max_concurrent_flows is not None:
            actor = Actor(client="contexten-flow", transport="cli", tool="serve")
            await service.set_strategy(plan.strategy, max_concurrent_flows=plan.max_concurrent_flows, actor=actor)
        yield service
