"""What a service tells of itself to whatever keeps figures."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..agents.registry import AgentRegistry
from ..clock import Clock
from ..errors import FlowError
from ..execution.run import RunExecution
from ..flows.plans import Plans
from ..live.feed import Feed
from ..scheduling.in_force import Scheduling
from ..store import Store
from ..trace_context import is_given
from .folding import Fold
from .measures import Measures
from .meters import NAME, Meters
from .readings import Readings, take_readings
from .tracing import Tracing

logger = logging.getLogger(__name__)

READ_S = 10.0  # between readings for gauges: metrics are exported once a minute by default


class Telemetry:
    """Measures and readings of one service. Nothing is folded or read before somebody asks."""

    def __init__(
        self,
        *,
        store: Store,
        feed: Feed,
        registry: AgentRegistry,
        scheduling: Scheduling,
        clock: Clock,
        plans: Plans,
        executions: Callable[[], Mapping[str, RunExecution]],
    ) -> None:
        """`executions` answers the runs under way in this process."""
        self._store = store
        self._feed = feed
        self._registry = registry
        self._scheduling = scheduling
        self._clock = clock
        self._executions = executions
        self._tracing = Tracing(store, plans)
        self._stops: list[Callable[[], None]] = []

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Tell the program's providers of tracers and meters, where it has loaded OpenTelemetry's SDK or another; the
        tasks are the caller's to cancel. Providers of meters are taken that are set by now."""
        tasks = []
        if "opentelemetry.sdk.trace" in sys.modules or is_given(_provider("trace", "get_tracer_provider")):
            self._stops.append(self._feed.listen(self._tracing.heard))
            tasks.append(group.create_task(self._tracing.run(), name="traces"))
        meters = _provider("metrics", "get_meter_provider")
        if is_given(meters):
            instruments = Meters(meters.get_meter(NAME))
            self._stops.append(self._feed.listen(Fold(instruments, self._executions)))
            tasks.append(group.create_task(self._keep_reading(instruments), name="readings"))
        return tasks

    async def finish(self) -> None:
        """Tell what has ended; in bounded time."""
        if self._stops:
            await self._tracing.finish()
        while self._stops:
            self._stops.pop()()

    async def _keep_reading(self, instruments: Meters) -> None:
        while True:
            try:
                instruments.latest = await self.readings()
            except FlowError as error:
                logger.warning("gauges could not be read: %s", error)
            except Exception:
                logger.exception("gauges could not be read")
            await self._clock.sleep(READ_S)

    async def measure(self, measures: Measures) -> Callable[[], None]:
        """Tell `measures` of what this process records from now on; answers how to stop. Some microseconds a commit."""
        return self._feed.listen(Fold(measures, self._executions))

    async def readings(self) -> Readings:
        """What stands where now. Raises StoreError."""
        return await take_readings(self._store, self._registry, self._scheduling, self._clock)


def _provider(api: str, get: str) -> Any:
    """The provider that is set; a plain object where nobody has loaded OpenTelemetry."""
    module = sys.modules.get(f"opentelemetry.{api}")
    return getattr(module, get)() if module is not None else None
