"""What a worker tells of an attempt while it makes it, on Prefect's flow run: that it lives, and the attempt's log."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from ..agents.protocol import Json
from ..agents.secrets import SecretVault
from ..store.moves import USAGE
from .connection import Connection, trouble_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.actions import LogCreate

logger = logging.getLogger(__name__)

BEAT = "contexten.beat"
"""A label of the flow run that changes while its worker lives."""
LINES = "contexten.lines"
"""A label: how many lines of the log were sent so far."""
LOG = "contexten-flow"
RECORD = "contexten-flow.record"
"""Names of loggers: lines of the attempt's log, and entries for the run's journal as JSON `[event, data]`."""

MAX_LINES = 2000
"""Of one attempt, with entries for the journal; that keeps a thousand lines of its log. What models used is no line:
the verdict tells it."""
_MAX_CHARS = 20_000  # Prefect Cloud takes 25,000 a line
_BATCH = 100  # lines a request
_BURST_S = 0.2  # lines come in bursts: those of this time go together
_BEATS_A_LEASE = 3
_FAREWELL_S = 1.0  # for a request that is under way to end
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Lifeline:
    """Beats and sends lines while `async with` holds it; at its end all lines are sent."""

    def __init__(self, connection: Connection, flow_run_id: UUID, vault: SecretVault, *, lease_ttl_s: float) -> None:
        """The worker is taken for dead after `lease_ttl_s` without a beat."""
        self._connection = connection
        self._clock = connection.clock
        self._flow_run_id = flow_run_id
        self._vault = vault
        self._pause_s = lease_ttl_s / _BEATS_A_LEASE
        self._pending: list[LogCreate] = []
        self._taken = 0
        self._last: datetime | None = None
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._beats = 0
        self.lines = 0
        """Lines sent so far."""
        self.usage: list[dict[str, Json]] = []
        """What the attempt's models used, for its verdict."""
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat(), name=f"beat of {self._flow_run_id}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        beating = self._beating
        if beating is not None:
            try:
                async with self._turn:  # a line that is being sent is not sent again
                    beating.cancel()
            finally:  # cancelled here as well: a beat that goes on says that a dead attempt lives
                beating.cancel()
                await asyncio.wait([beating], timeout=_FAREWELL_S)
        if not isinstance(exc, asyncio.CancelledError):
            while self._pending:
                await self._connection.ask(self._send)

    def log(self, level: str, message: str) -> None:
        """Take a line of the attempt's log."""
        self._take(LOG, LEVELS.get(level, 20), str(message))

    def record(self, event: str, data: dict[str, Json]) -> None:
        """Take an entry for the run's journal."""
        if event == USAGE:
            self.usage.append(self._vault.mask(data))
            return
        text = json.dumps([event, self._vault.mask(data)], ensure_ascii=False, default=str)
        if len(text) > _MAX_CHARS:
            kept = {name: value for name, value in data.items() if not isinstance(value, dict | list)}
            text = json.dumps([event, {**self._vault.mask(kept), "cut": True}], ensure_ascii=False, default=str)
        if len(text) <= _MAX_CHARS:
            self._take(RECORD, 10, text)

    def _take(self, name: str, level: int, text: str) -> None:
        from prefect.client.schemas.actions import LogCreate

        self._taken += 1
        if self._taken > MAX_LINES:
            return
        if self._taken == MAX_LINES:
            name, level, text = LOG, LEVELS["warning"], f"the log ends here: {MAX_LINES} lines are kept of an attempt"
        at = self._clock.now()
        if self._last is not None and at <= self._last:  # readers order by time
            at = self._last + timedelta(microseconds=1)
        self._last = at
        text = str(self._vault.mask(text))[:_MAX_CHARS].encode("utf-8", "replace").decode()
        line: dict[str, Any] = {"name": name, "level": level, "message": text, "timestamp": at}
        self._pending.append(LogCreate(**line, flow_run_id=self._flow_run_id))
        self._news.set()

    async def _send(self, client: PrefectClient) -> None:
        batch = self._pending[:_BATCH]
        await client.create_logs(batch)
        del self._pending[: len(batch)]
        self.lines += len(batch)

    async def _tell(self, client: PrefectClient) -> None:
        await client.update_flow_run_labels(self._flow_run_id, {BEAT: self._beats, LINES: self.lines})

    async def _beat(self) -> None:
        """Beat, and send lines soon after they came, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._news.wait()
                    await self._clock.sleep(_BURST_S)
            self._news.clear()
            try:
                async with self._turn:
                    while self._pending:
                        await self._connection.once(self._send)
                    self._beats += 1
                    await self._connection.once(self._tell)
            except Exception as error:  # noqa: BLE001 - without beats a living attempt is taken for dead
                logger.warning("Prefect's API took no sign of life: %s", trouble_of(error))
                await self._clock.sleep(min(1.0, self._pause_s))
                self._news.set()
