"""Schedules: each planned time of each schedule is delivered once, whichever servers run."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial

from ..clock import Clock, make_id
from ..errors import FlowError, InvalidArguments
from ..live.bell import Bell
from ..live.turns import RETRY_S, take_turns
from ..live.watching import Change, Watchers
from ..store import Store, Transaction
from ..store.sql import SQL
from ..store.triggers import BATCH, NewDelivery, fire
from .configs import ScheduleConfig, parse_config
from .model import TriggerKind
from .schedule import TICK, due, planned_id, tick_payload

logger = logging.getLogger(__name__)

LOOK_S = 60.0  # at the longest between looks at the wall clock, which may be set

_CHANGES = frozenset({"trigger.created", "trigger.updated", "trigger.deleted"})


class Clockwork:
    """Fires the schedules of one database. Without any it sleeps until there is one. Used on the event loop only."""

    def __init__(self, *, store: Store, watchers: Watchers, clock: Clock, handlers: Collection[str]) -> None:
        """`handlers`, the names of the functions that are here, grows. A schedule that another function handles is left
        to who has it: what passes meanwhile is caught up then, as the schedule says."""
        self._store = store
        self._watchers = watchers
        self._clock = clock
        self._handlers = handlers
        self._bell = Bell(clock)
        self._told: set[tuple[str, float]] = set()
        """Schedules that cannot be fired, as they were changed last: the log says so once."""

    def look(self) -> None:
        """Look for what is due."""
        self._bell.ring()

    async def run(self) -> None:
        """Fire what is due, until cancelled."""
        await take_turns(
            self._turn,
            bell=self._bell,
            watchers=self._watchers,
            heard=self._heard,
            failure="schedules could not be fired",
        )

    def _heard(self, change: Change) -> None:
        if not _CHANGES.isdisjoint(change.types):
            self._bell.ring()

    async def _turn(self) -> float | None:
        """Fire what is due; answers how long nothing will be, None where there is no schedule."""
        now = self._clock.now()
        handlers = json.dumps(sorted(self._handlers))
        rows = await self._store.rows(SQL["due_triggers"], (now.timestamp(), handlers, BATCH))
        fired = await asyncio.gather(*(self._fire(row, now) for row in rows))
        if rows:
            return 0.0 if all(fired) else RETRY_S
        following = await self._store.row(SQL["next_trigger_at"], (handlers,))
        if following is None:
            return None
        wait_s: float = following[0] - self._clock.timestamp()
        return min(max(0.0, wait_s), LOOK_S)

    async def _fire(self, row: sqlite3.Row, now: datetime) -> bool:
        """Answers False where the schedule cannot be fired: no other one is held up by it."""
        try:
            await self._store.write(self._change(row, now))
        except InvalidArguments as error:  # another version of this program took its config
            if self._is_news(row):
                logger.error("the schedule %s cannot be read: %s", row["trigger_id"], error)  # noqa: TRY400 - no defect
            return False
        except FlowError as error:
            logger.warning("the schedule %s will be fired later: %s", row["trigger_id"], error)
            return False
        except Exception:  # a defect must hold up no other schedule
            if self._is_news(row):
                logger.exception("the schedule %s cannot be fired", row["trigger_id"])
            return False
        return True

    def _is_news(self, row: sqlite3.Row) -> bool:
        key = (str(row["trigger_id"]), float(row["updated_at"]))
        is_news = key not in self._told
        self._told.add(key)
        return is_news

    def _change(self, row: sqlite3.Row, now: datetime) -> Callable[[Transaction], bool]:
        """Raises InvalidArguments where the config cannot be read."""
        config = parse_config(TriggerKind(row["kind"]), json.loads(row["config"]))
        assert isinstance(config, ScheduleConfig)  # noqa: S101 - only schedules have a next time
        doing = due(config, datetime.fromtimestamp(row["next_at"], UTC), now)
        ticks = [
            NewDelivery(
                trigger_id=row["trigger_id"],
                delivery_id=make_id("dlv_", now.timestamp()),
                event_id=planned_id(planned),
                type=TICK,
                payload=json.dumps(tick_payload(planned)),
                at=now.timestamp(),
                max_pending=config.max_pending,
            )
            for planned in doing.fire
        ]
        next_at = doing.next.timestamp() if doing.next is not None else None
        return partial(
            fire,
            trigger_id=row["trigger_id"],
            planned=row["next_at"],
            next_at=next_at,
            ticks=ticks,
            missed=doing.missed,
            at=now.timestamp(),
        )
