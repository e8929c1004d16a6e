"""The store: one SQLite file that holds flows, runs, tasks and the journal, durable before it answers."""

from .database import SCHEMA_LEVEL, Store
from .records import CachedOutput, CacheEntry, ClaimedRun, NewRun, RunMove, StoredText, Submitted, TaskMove, TaskRow
from .writer import Committed, Event, Refused, Stale, Transaction

__all__ = [
    "SCHEMA_LEVEL",
    "CacheEntry",
    "CachedOutput",
    "ClaimedRun",
    "Committed",
    "Event",
    "NewRun",
    "Refused",
    "RunMove",
    "Stale",
    "Store",
    "StoredText",
    "Submitted",
    "TaskMove",
    "TaskRow",
    "Transaction",
]
