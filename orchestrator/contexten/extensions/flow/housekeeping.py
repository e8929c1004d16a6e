"""What is too old or too many is pruned from time to time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from .clock import Clock
from .errors import FlowError
from .settings import FlowSettings
from .store import Store
from .store.notifications import prune_dispatches
from .store.retention import prune, prune_cache, prune_entries, prune_flows
from .store.sql import SQL
from .store.triggers import prune_deliveries

logger = logging.getLogger(__name__)

PRUNE_S = 600.0  # between prunings
PAUSE_S = 0.01  # between the batches of one, for those that work


async def keep_pruned(store: Store, settings: FlowSettings, clock: Clock, forget: Callable[[list[str]], None]) -> None:
    """Prune by the settings' rules until cancelled; `forget` hears of the flows that are gone."""
    keep = settings.retention_runs
    while True:
        at = clock.timestamp()
        before = at - settings.retention_days * 86400
        try:
            while await store.write(partial(prune_cache, at=at)):
                await clock.sleep(PAUSE_S)
            line = await keep_line(store, "keep_line_of_dispatches", keep)
            while await store.write(partial(prune_dispatches, ended_before=before, up_to=line)):
                await clock.sleep(PAUSE_S)
            line = await keep_line(store, "keep_line", keep)
            while await store.write(partial(prune, ended_before=before, up_to=line)):
                await clock.sleep(PAUSE_S)
            line = await keep_line(store, "keep_line_of_deliveries", keep)
            while await store.write(partial(prune_deliveries, ended_before=before, up_to=line)):
                await clock.sleep(PAUSE_S)
            line = await keep_line(store, "keep_line_of_entries", keep)
            while await store.write(partial(prune_entries, made_before=before, up_to=line)):
                await clock.sleep(PAUSE_S)
            line = await keep_line(store, "keep_line_of_flows", keep)
            while gone := await store.write(partial(prune_flows, at=at, saved_before=before, up_to=line)):
                forget(gone)
                await clock.sleep(PAUSE_S)
        except FlowError as error:
            logger.warning("pruning failed and will be tried again: %s", error)
        except Exception:  # a defect here must not end what works
            logger.exception("pruning failed and will be tried again")
        await clock.sleep(PRUNE_S)


async def keep_line(store: Store, query: str, keep: int) -> int:
    """The place of the newest that is beyond the `keep` newest, as that statement finds it; 0 where there is none.
    Sought once for all batches, and by who reads: all of them may be sorted for it. Raises StoreError."""
    row = await store.row(SQL[query], (keep,))
    return int(row[0]) if row else 0
