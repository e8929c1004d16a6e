"""The files that triggers watch: one watch for each enabled trigger, for as long as it is as it was."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from ..clock import Clock
from ..errors import FlowError, TriggerNotFound
from ..live.bell import Bell
from ..live.turns import RETRY_S, take_turns
from ..live.watching import Change, Watchers
from ..store import Store
from ..store.sql import SQL
from .configs import FileConfig, parse_config
from .model import Trigger, TriggerEvent
from .views import DeliveryView, trigger_of

logger = logging.getLogger(__name__)

_CHANGES = frozenset({"trigger.created", "trigger.updated", "trigger.deleted"})


class FileWatches:
    """Watches the files of one database's triggers. Without such triggers it sleeps. Used on the event loop only."""

    def __init__(
        self,
        *,
        store: Store,
        watchers: Watchers,
        clock: Clock,
        deliver: Callable[[Trigger, TriggerEvent], Awaitable[DeliveryView | None]],
        allow_paths: Sequence[Path],
    ) -> None:
        self._store = store
        self._watchers = watchers
        self._clock = clock
        self._deliver = deliver
        self._allow_paths = allow_paths
        self._bell = Bell(clock)
        self._watches: dict[str, tuple[float, asyncio.Task[None]]] = {}
        """By trigger: since which change of it, and its task."""

    async def run(self) -> None:
        """Watch what triggers ask for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            await take_turns(
                partial(self._follow, group),
                bell=self._bell,
                watchers=self._watchers,
                heard=self._heard,
                failure="the files to watch could not be looked for",
            )

    def _heard(self, change: Change) -> None:
        if not _CHANGES.isdisjoint(change.types):
            self._bell.ring()

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        wanted = {row["trigger_id"]: row for row in await self._store.rows(SQL["file_triggers"])}
        for trigger_id, (since, task) in list(self._watches.items()):
            if trigger_id not in wanted or wanted[trigger_id]["updated_at"] != since:
                task.cancel()
                del self._watches[trigger_id]
        for trigger_id, row in wanted.items():
            if trigger_id not in self._watches:
                task = group.create_task(self._watch(trigger_of(row)), name=f"files of {trigger_id}")
                self._watches[trigger_id] = (row["updated_at"], task)

    async def _watch(self, trigger: Trigger) -> None:
        from .files import watch_files  # its library is loaded only where something is watched

        while True:
            try:
                config = parse_config(trigger.kind, trigger.config)
                assert isinstance(config, FileConfig)  # noqa: S101 - the query asks for no others
                await watch_files(trigger, config, self._take, self._allow_paths, self._clock)
            except FlowError as error:
                logger.warning("the files of the trigger %s cannot be watched now: %s", trigger.trigger_id, error)
            except Exception:
                logger.exception("the files of the trigger %s cannot be watched now", trigger.trigger_id)
            await self._clock.sleep(RETRY_S)

    async def _take(self, trigger: Trigger, event: TriggerEvent) -> DeliveryView | None:
        """Deliver what happened to a file, later where that cannot be recorded now: no file is overlooked. An event
        that can never be recorded holds up no other one."""
        while True:
            try:
                return await self._deliver(trigger, event)
            except TriggerNotFound:  # deleted just now: the watch ends when that is heard of
                return None
            except FlowError as error:
                if not error.may_pass:
                    logger.warning(
                        "an event of the trigger %s cannot be recorded: %s",
                        trigger.trigger_id,
                        error,
                        extra={"action": "watch_files", "trigger_id": trigger.trigger_id},
                    )
                    return None
                await self._clock.sleep(RETRY_S)
