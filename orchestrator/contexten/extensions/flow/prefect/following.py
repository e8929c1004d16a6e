"""Watching many flow runs with one request at a time: their states, and whether their workers live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from ..clock import Clock
from .api import PrefectError
from .connection import Connection, trouble_of
from .lifeline import BEAT, LINES

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

POLL_S = 1.0
_AT_ONCE = 200  # what the API gives in one answer
_MIN_PAUSE_S = 0.05  # between requests, however many changes are told
_MAX_DELAY_S = 10.0
_LOOKS_FOR_MISSING = 3


class Watched:
    """One flow run as it was last seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.run: FlowRun | None = None
        self.lines = 0
        """Lines that its worker has sent."""
        self.is_gone = False
        """Prefect knows it no more."""
        self.trouble: PrefectError | None = None
        """Why it cannot be seen, while that lasts."""
        self.troubled_s = 0.0
        """For how long that has been so."""
        self._sign: object = None
        self._heard = clock.monotonic()
        self._missing = 0
        self._changed = asyncio.Event()

    def silent_s(self) -> float:
        """For how long there was no sign of life though one could have been seen."""
        return self._clock.monotonic() - self._heard

    async def look(self, timeout_s: float | None) -> None:
        """Wait until it was looked at again, `timeout_s` at most."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def see(self, run: FlowRun | None, *, was_away: bool) -> None:
        """Take what the API answered; `was_away` says that it did not answer before."""
        self.trouble, self.troubled_s = None, 0.0
        if run is None:
            self._missing += 1
            self.is_gone = self._missing >= _LOOKS_FOR_MISSING
        else:
            self._missing = 0
            self.run = run
            lines = run.labels.get(LINES, 0)
            self.lines = lines if isinstance(lines, int) else 0
            sign = (run.state.id if run.state is not None else None, run.labels.get(BEAT))
            if sign != self._sign or was_away:
                self._sign, self._heard = sign, self._clock.monotonic()
        self._changed.set()

    def miss(self, error: PrefectError, for_s: float) -> None:
        """Take that the API did not answer, for so long now."""
        self.trouble, self.troubled_s = error, for_s
        self._changed.set()


class Follower:
    """Looks at all watched flow runs each POLL_S, and when it is woken."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clock = connection.clock
        self._watched: dict[UUID, list[Watched]] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    @contextmanager
    def watch(self, flow_run_id: UUID) -> Iterator[Watched]:
        """Watch a flow run while the context lasts."""
        watched = Watched(self._clock)
        self._watched.setdefault(flow_run_id, []).append(watched)
        self.wake()
        try:
            yield watched
        finally:
            others = self._watched[flow_run_id]
            others.remove(watched)
            if not others:
                del self._watched[flow_run_id]

    async def follow(self) -> None:
        """Never returns."""
        away_since: float | None = None
        delay_s = POLL_S
        while True:
            try:
                async with asyncio.timeout(delay_s if self._watched else None):
                    await self._wake.wait()
                if away_since is not None:
                    await self._clock.sleep(delay_s)
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._look(was_away=away_since is not None)
                away_since, delay_s = None, POLL_S
            except Exception as error:  # noqa: BLE001 - an answer that cannot be read must not end the watching
                problem = trouble_of(error)
                now = self._clock.monotonic()
                away_since = now if away_since is None else away_since
                delay_s = min(delay_s * 2, _MAX_DELAY_S)
                for watched in self._all():
                    watched.miss(problem, now - away_since)
            await self._clock.sleep(_MIN_PAUSE_S)

    async def _look(self, *, was_away: bool) -> None:
        ids = list(self._watched)
        for at in range(0, len(ids), _AT_ONCE):
            some = ids[at : at + _AT_ONCE]
            found = {run.id: run for run in await self._connection.once(partial(_read, some))}
            for flow_run_id in some:
                for watched in self._watched.get(flow_run_id, ()):
                    watched.see(found.get(flow_run_id), was_away=was_away)

    def _all(self) -> list[Watched]:
        return [watched for group in self._watched.values() for watched in group]


async def _read(ids: Sequence[UUID], client: PrefectClient) -> list[FlowRun]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    return await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(ids))))
