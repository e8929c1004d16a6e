"""One core for each database in a process: every facade that names the same file shares it.

A facade is used bare (it opens on first use and closes with `aclose()`) or with `async with`. The core lives in a task
of its own, so that it may be opened by one task and closed by another; it closes with its last user.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..agents.python_agent import adapt_agents
from ..recovery.executor import FlowExecutor
from ..scheduling.in_force import check_limit
from ..service import FlowService
from ..settings import FlowSettings
from ..store.place import file_of
from ..strategies import strategy_named

logger = logging.getLogger(__name__)


class _Core:
    """A service in a task of its own, and how many use it."""

    def __init__(self, service: FlowService) -> None:
        self.service = service
        self.users = 0
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._close = asyncio.Event()
        self._task = asyncio.create_task(self._live(), name="contexten-flow")
        self._task.add_done_callback(lambda _: _forget(self))

    async def _live(self) -> None:
        try:
            async with self.service:
                self._opened.set_result(None)
                await self._close.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)
            if not isinstance(error, Exception):
                raise

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its event loop has and it never will."""
        return self._loop.is_closed() or self._task.done()

    async def opened(self) -> None:
        """Until the service is open. Raises what opening it raised."""
        await asyncio.shield(self._opened)

    async def closed(self) -> None:
        """Until the service is closed and this is forgotten."""
        await asyncio.wait([self._task])
        _forget(self)

    async def close(self) -> None:
        """Close the service and wait for it; who is cancelled meanwhile leaves it closing."""
        self._close.set()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


_cores: dict[tuple[asyncio.AbstractEventLoop, Path], _Core] = {}
"""The cores of each event loop, by database, until they are closed. Written by `_acquire` and `_forget` only."""


def _check_same(given: FlowSettings, in_force: FlowSettings) -> None:
    """Raises ValueError where something that was set is not as it is in the core that is open already."""
    names = sorted(given.model_fields_set - {"database"})
    differing = [name for name in names if getattr(given, name) != getattr(in_force, name)]
    if differing:
        raise ValueError(
            f"This database is open in this process with other settings: {', '.join(differing)} differ. Use the same "
            "settings, or close what has it open first."
        )


async def _acquire(settings: FlowSettings, agents: Any, executor: FlowExecutor | None, *, is_given: bool) -> _Core:
    _bury()
    key = asyncio.get_running_loop(), file_of(settings.database)
    while (core := _cores.get(key)) is not None and not core.users:
        await core.closed()
    if core is None:
        core = _cores[key] = _Core(FlowService(settings, agents=agents, executor=executor))
    else:
        if is_given:
            _check_same(settings, core.service.settings)
        core.service.add_agents(agents)
        if executor is not None:
            core.service.set_executor(executor)
    core.users += 1
    try:
        await core.opened()
    except BaseException:
        await _release(core)
        raise
    return core


async def _release(core: _Core) -> None:
    core.users -= 1
    if core.users:
        return
    await core.close()


def _forget(core: _Core) -> None:
    for key in [key for key, other in _cores.items() if other is core]:
        del _cores[key]


def _bury() -> None:
    """Forget the cores that are over. One whose event loop was closed under it lets go of its database only here."""
    for core in [core for core in _cores.values() if core.is_over]:
        _forget(core)
        core.service.abandon()


class Facade:
    """What FlowManager, FlowOrchestrator and FlowScheduler share: settings, agents, and their hold on the core."""

    def __init__(
        self,
        agents: Any,
        *,
        settings: FlowSettings | None,
        executor: FlowExecutor | None,
        strategy: object | None = None,
        max_concurrent_flows: int | None = None,
    ) -> None:
        """Without `settings` those of a core that is open already hold. Raises TypeError or ValueError where `agents`
        are none, InvalidArguments for the strategy."""
        adapt_agents(agents)
        self.settings = settings or FlowSettings()
        self._is_given = settings is not None
        self._agents = agents
        self._executor = executor
        self._max_concurrent_flows = None if max_concurrent_flows is None else check_limit(max_concurrent_flows)
        self._strategy: str | None = None
        if strategy is not None:
            self._strategy = strategy_named(strategy, aging_interval_s=self.settings.aging_interval_s).name
        self._core: _Core | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """On which it was used last."""
        self._opening = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it holds a core that runs."""
        return self._core is not None and not self._core.is_over

    def _settle(self) -> None:
        """Be on the event loop that runs. Raises RuntimeError where it is open on another one, which is not closed."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self.is_open:
            raise RuntimeError(
                f"This {type(self).__name__} is open on another event loop: aclose() it there, or make one here."
            )
        self._core, self._loop, self._opening = None, loop, asyncio.Lock()
        _bury()

    async def service(self) -> FlowService:
        """The core, opened on first use, and again where its event loop was closed since. Raises StoreError where the
        database cannot be used, ValueError where other settings were given than it is open with here, RuntimeError
        where this is open on another event loop."""
        self._settle()
        async with self._opening:
            if self._core is None or self._core.is_over:
                core = await _acquire(self.settings, self._agents, self._executor, is_given=self._is_given)
                if self._strategy is not None or self._max_concurrent_flows is not None:
                    try:
                        await core.service.set_strategy(self._strategy, max_concurrent_flows=self._max_concurrent_flows)
                    except BaseException:
                        await _release(core)
                        raise
                self._core = core
            return self._core.service

    async def start(self) -> None:
        """Open the core: queued runs start, interrupted ones go on. Idempotent, and possible again after `aclose()`."""
        await self.service()

    async def aclose(self) -> None:
        """Give the core up; its last user closes it. Unfinished runs go on when it is opened again."""
        self._settle()
        async with self._opening:
            core, self._core = self._core, None
            if core is not None:
                await _release(core)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
