"""From deliveries to runs: whatever was accepted starts its run exactly once, in order, within its trigger's limits.

One server at a time starts the deliveries of a trigger; where that server dies another goes on. A run is submitted
under its delivery's own idempotency key, so that a crash between its submission and the record of it doubles nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

from ..clock import Clock
from ..errors import Closing, FlowError
from ..live.bell import Bell
from ..live.turns import RETRY_S, take_turns
from ..live.watching import Change, Watchers
from ..states import TERMINAL_RUN_STATES
from ..store import Store, Transaction
from ..store.sql import SQL
from ..store.triggers import BATCH, Settled, Waiting, leave, next_deliveries, settle, take, tell_handlers
from .treatment import AT_ONCE, Held, Treatment, config_of

logger = logging.getLogger(__name__)

_DELIVERIES = frozenset({"trigger.delivered", "trigger.redelivered", "trigger.released"})
_CHANGES = frozenset({"trigger.updated", "trigger.deleted"})
_SERVERS = frozenset({"server.started", "server.lost", "server.stopped"})
_TAKES = _DELIVERIES | _CHANGES | _SERVERS

_UNSTARTED = "the deliveries of the trigger %s could not be started and will be tried again"


class Processing:
    """Starts the deliveries of triggers. It costs next to nothing while there are none. Used on the event loop only."""

    def __init__(
        self,
        *,
        store: Store,
        watchers: Watchers,
        clock: Clock,
        treatment: Treatment,
        server_id: Callable[[], str],
        handlers: Collection[str],
    ) -> None:
        """`server_id` answers under which id this process drives runs; `handlers`, the names of the functions that are
        here, grows."""
        self._store = store
        self._watchers = watchers
        self._clock = clock
        self._treatment = treatment
        self._server_id = server_id
        self._handlers = handlers
        self._news = Bell(clock)
        self._told: tuple[str, list[str]] | None = None
        """Which handlers the database knows to be here, under which id of this process."""
        self._bells: dict[Bell, str | None] = {}
        """Of the triggers whose deliveries are started here, with the flow whose ends matter to each (None: any)."""

    def look(self) -> None:
        """Look for deliveries that nobody starts; the handlers that are here may be others."""
        self._news.ring()

    async def run(self) -> None:
        """Start what waits and what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            await take_turns(
                partial(self._take, group),
                bell=self._news,
                watchers=self._watchers,
                heard=self._heard,
                failure="deliveries could not be read",
            )

    def _heard(self, change: Change) -> None:
        if self._bells and (change.state in TERMINAL_RUN_STATES or not _CHANGES.isdisjoint(change.types)):
            for bell, flow_id in self._bells.items():
                if flow_id is None or flow_id == change.flow_id:
                    bell.ring()
        if not _TAKES.isdisjoint(change.types):
            self._news.ring()

    async def _take(self, group: asyncio.TaskGroup) -> None:
        server_id, handlers = self._server_id(), sorted(self._handlers)
        if (server_id, handlers) != self._told and (handlers or self._told is not None):
            await self._store.write(partial(tell_handlers, server_id=server_id, handlers=handlers))
            self._told = (server_id, handlers)
        while await self._store.row(SQL["free_triggers"], (json.dumps(handlers), 1)) is not None:
            taken = await self._store.write(partial(take, server_id=server_id, handlers=handlers))
            for trigger_id, flow_id in taken:
                group.create_task(self._work(trigger_id, flow_id, server_id), name=f"trigger {trigger_id}")
            if len(taken) < BATCH:
                return

    # One trigger
    async def _work(self, trigger_id: str, flow_id: str | None, server_id: str) -> None:
        """Start a trigger's deliveries until none waits or the trigger is another server's. As long as it is this
        server's, whatever befalls that is tried again."""
        self._bells[bell := Bell(self._clock)] = flow_id
        try:
            while True:
                try:
                    return await self._start(trigger_id, server_id, bell)
                except asyncio.CancelledError:
                    if _is_cancelled():
                        raise
                    logger.exception(_UNSTARTED, trigger_id)  # something that was awaited
                except Exception:  # a defect must not end what works
                    logger.exception(_UNSTARTED, trigger_id)
                    if _is_cancelled():
                        return None
                await self._clock.sleep(RETRY_S)
        finally:
            self._bells.pop(bell, None)

    async def _start(self, trigger_id: str, server_id: str, bell: Bell) -> None:
        """Start its deliveries, in order. The bell tells of what may end a wait."""
        unsure = AT_ONCE  # how many whoever had the trigger before may have started, and died before it was recorded
        waiting = await self._recorded(trigger_id, server_id)
        while waiting is not None:
            batch = waiting.delivery_ids if _is_free(waiting) else waiting.delivery_ids[:1]
            outcome = partial(self._treatment.outcome, waiting, may_be_started=unsure > 0)
            outcomes = await asyncio.gather(*map(outcome, batch), return_exceptions=True)
            for failure in outcomes:  # all have ended: none goes on beside its next try
                if isinstance(failure, BaseException):
                    raise failure
            settled = [one for one in outcomes if isinstance(one, Settled)]
            held = next((one for one in outcomes if isinstance(one, Held)), None)
            if not settled and held is None:  # others have the function that this process has no more
                with suppress(FlowError):  # the store is closed, and the trigger is free with that
                    at = self._clock.timestamp()
                    await self._store.write(partial(leave, trigger_id=trigger_id, server_id=server_id, at=at))
                return
            unsure = max(0, unsure - len(settled))
            if settled:
                waiting = await self._recorded(trigger_id, server_id, settled)
            if held is not None and waiting is not None:
                await bell.wait(held.seconds)
                waiting = await self._recorded(trigger_id, server_id)

    async def _recorded(self, trigger_id: str, server_id: str, settled: Sequence[Settled] = ()) -> Waiting | None:
        """Record what became of deliveries, again until it is recorded, and answer what is next. Nothing is where the
        store is closed."""
        while True:
            at = self._clock.timestamp()
            try:
                return await self._store.write(
                    partial(_record, settled=settled, trigger_id=trigger_id, server_id=server_id, at=at)
                )
            except Closing:
                return None
            except FlowError as error:
                logger.warning("a delivery could not be recorded and will be tried again: %s", error)
                await self._clock.sleep(RETRY_S)


def _is_cancelled() -> bool:
    """Whether the current task itself is being cancelled: else a CancelledError is of something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_free(waiting: Waiting) -> bool:
    """Whether the trigger's deliveries may start without a look at what became of those before."""
    try:
        config = config_of(waiting)
    except FlowError:  # each of them will fail for that
        return False
    return waiting.handler is None and config.rate is None and not config.is_bounded


def _record(tx: Transaction, settled: Sequence[Settled], trigger_id: str, server_id: str, at: float) -> Waiting | None:
    for one in settled:
        settle(tx, one, server_id)
    return next_deliveries(tx, trigger_id, server_id, limit=AT_ONCE, at=at)
