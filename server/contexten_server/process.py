"""The process around a transport: the service is opened once, before it, and closed after it, in bounded time."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten_resources import LiveUpdates
from contexten_server.assembly import build_server
from contexten_server.stopping import Stop
from contexten_tools import App, ToolServer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be served."""

    settings: FlowSettings
    transport: str
    read_only: bool = False
    toolsets: tuple[str, ...] = ("default",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open service and the server over it."""

    app: App
    server: ToolServer


Serve = Callable[[Opened, Stop], Awaitable[None]]


def run_process(plan: Plan, serve: Serve) -> None:
    """Open the service, serve until the transport ends or the process is asked to stop, close.

    Raises StoreError where the database cannot be used; what the transport raises is raised alone, not in a group.
    """
    try:
        anyio.run(_run, plan, serve, backend="asyncio")
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _run(plan: Plan, serve: Serve) -> None:
    stop = Stop(plan.settings.stop_grace_s)
    service = FlowService(plan.settings, holder=f"contexten-flow serve ({plan.transport})")
    with stop.on_signals(), anyio.CancelScope() as life:
        async with service:
            try:
                if not stop.is_asked:
                    await _serve(plan, service, serve, stop)
            finally:
                stop.ask("the transport ended")
                # What is cut short then is taken up at the next start: the database is right at every moment.
                life.deadline = anyio.current_time() + stop.left_s
    if life.cancelled_caught:
        logger.warning("The service did not close in time; its runs go on at the next start")


async def _serve(plan: Plan, service: FlowService, serve: Serve, stop: Stop) -> None:
    app = App(
        service=service,
        settings=plan.settings,
        transport=plan.transport,
        read_only=plan.read_only,
        toolsets=plan.toolsets,
    )
    async with LiveUpdates() as updates:
        server = build_server(app, updates=updates)
        await updates.start(service)
        async with anyio.create_task_group() as group:

            async def end_streams() -> None:
                await stop.wait()
                updates.close_streams()

            group.start_soon(end_streams, name="end of subscriptions")
            await serve(Opened(app=app, server=server), stop)
            group.cancel_scope.cancel()
