"""Deadlines: what was not done in time is journaled, and cancelled where that was asked for."""

from __future__ import annotations

import json

from .requests import request
from .sql import SQL
from .writer import Transaction

ACTOR = "scheduler"
BATCH = 200  # deadlines a transaction: they must not hold up those that work


def miss_due(tx: Transaction, at: float) -> int:
    """Journal up to a batch of the deadlines that have passed, each once; answers how many."""
    due = tx.rows(SQL["due_deadlines"], (at, BATCH))
    for run_id, flow_id, deadline, on_deadline in due:
        data = json.dumps({"deadline": deadline, "on_deadline": on_deadline})
        cursor = tx.event("run.deadline_missed", at, run_id=run_id, flow_id=flow_id, actor=ACTOR, data=data)
        tx.execute(SQL["miss_deadline"], (cursor, run_id))
        if on_deadline == "cancel":
            request(tx, run_id, "cancel", at, reason="its deadline was missed", actor=ACTOR)
    return len(due)
