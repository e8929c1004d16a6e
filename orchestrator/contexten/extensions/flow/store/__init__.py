"""The store: one SQLite file that holds flows, runs, tasks and the journal, durable before it answers."""

from .database import SCHEMA_LEVEL, Store
from .records import ClaimedRun, NewRun, RunMove, StoredText, Submitted, TaskMove, TaskRow
from .writer import Committed, Event, Refused, Transaction

__all__ = [
    "SCHEMA_LEVEL",
    "ClaimedRun",
    "Committed",
    "Event",
    "NewRun",
    "Refused",
    "RunMove",
    "Store",
    "StoredText",
    "Submitted",
    "TaskMove",
    "TaskRow",
    "Transaction",
]
