"""Keeps one child: started when it is first needed, started anew when it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from ..clock import Clock
from ..engines.choice import how_to_install
from ..errors import AttemptError
from .process import ChildGone, ChildProcess, ChildUnfit

logger = logging.getLogger(__name__)

Log = Callable[[str, str], None]


class RecordingApi(Protocol):
    """A Prefect API, which records the child's work."""

    @property
    def shown(self) -> str:
        """Its URL without credentials, for people."""
        ...

    @property
    def api_key(self) -> str | None: ...

    @property
    def auth_string(self) -> str | None: ...

    def environment(self) -> dict[str, str]:
        """The variables by which the child finds it."""
        ...


class Keeper:
    """Used on one event loop."""

    def __init__(self, clock: Clock, *, api: Callable[[], RecordingApi | None], mask: Callable[[str], str]) -> None:
        """`api` tells the Prefect API by which the child's work is recorded, if by any."""
        self._clock = clock
        self._api = api
        self._mask = mask
        self._child: ChildProcess | None = None
        self._starting: asyncio.Task[ChildProcess] | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self.version: str | None = None
        """Of the library, once it was started."""

    @property
    def pid(self) -> int | None:
        """The child's, while it lives."""
        return self._child.pid if self._child is not None and not self._child.is_gone else None

    async def child(self, log: Log) -> ChildProcess:
        """A child that takes work; `log` is told while one is started. Raises AttemptError."""
        if self._starting is None and self._child is not None and not self._child.is_gone:
            return self._child
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="start controlflow")
            self._starting.add_done_callback(_retrieve)
        log("info", "ControlFlow starts in a process of its own; importing it takes some 10 s")
        begun = self._clock.monotonic()
        try:
            child = await asyncio.shield(self._starting)  # it is for others too
        except ChildUnfit as error:
            raise AttemptError(
                f"ControlFlow cannot be used: {self._mask(str(error))} Get it anew: {how_to_install('controlflow')}.",
                kind="invalid",
            ) from None
        except ChildGone as error:
            raise AttemptError(
                f"The ControlFlow process could not be started: {error}.", kind="agent_failure"
            ) from None
        log("info", f"ControlFlow {self.version} is ready after {self._clock.monotonic() - begun:.1f} s")
        return child

    async def _start(self) -> ChildProcess:
        try:
            if self._child is not None:
                farewell = asyncio.create_task(self._child.aclose(), name="end controlflow")
                self._farewells.add(farewell)
                farewell.add_done_callback(self._farewells.discard)
            api = self._api()
            child = self._child = ChildProcess(
                api.environment() if api is not None else {}, with_prefect=api is not None, mask=self._mask
            )
            self.version = await child.start()
            return child
        finally:
            self._starting = None

    async def aclose(self) -> None:
        """End the child."""
        if self._child is not None:
            await self._child.aclose()
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._farewells:
            await asyncio.wait(self._farewells)


def _retrieve(task: asyncio.Task[ChildProcess]) -> None:
    """Whoever waits for it hears what went wrong; if nobody does any more, nobody needs to."""
    if not task.cancelled() and task.exception() is not None:
        logger.debug("the ControlFlow process did not start")
