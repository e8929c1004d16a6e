"""Pruning: finished runs and their events go when they are too old or too many. What is not terminal is never
touched."""

from __future__ import annotations

from .sql import SQL
from .writer import Transaction

BATCH = 200  # runs a transaction: pruning must not hold up those that work


def prune(tx: Transaction, *, ended_before: float, keep: int) -> int:
    """Delete up to a batch of finished runs that ended before a time, or beyond the `keep` newest; answers how many."""
    line = tx.row(SQL["keep_line"], (keep,))
    roots = [run_id for (run_id,) in tx.rows(SQL["prunable"], (ended_before, line[0] if line else 0, BATCH))]
    for run_id in roots:
        _delete(tx, run_id)
    if roots:
        tx.execute(SQL["delete_orphan_blobs"])
    return len(roots)


def _delete(tx: Transaction, run_id: str) -> None:
    for (child,) in tx.rows(SQL["children"], (run_id,)):
        _delete(tx, child)
    tx.execute(SQL["delete_events"], (run_id,))
    tx.execute(SQL["delete_tasks"], (run_id,))
    tx.execute(SQL["forget_latest"], (run_id,))
    tx.execute(SQL["delete_run"], (run_id,))
