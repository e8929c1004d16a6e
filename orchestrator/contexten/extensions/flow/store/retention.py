"""Pruning: finished runs and their events, what is left of flows that nobody saved, and the journal's other entries go
when they are too old or too many. What is not terminal is never touched.

The place of the last entry that went is remembered in the same transaction: who holds an earlier cursor is told that
entries after it are missing.
"""

from __future__ import annotations

from .sql import SQL
from .writer import Transaction

BATCH = 200  # runs, flows or entries a transaction: pruning must not hold up those that work
_PRUNED = "pruned"


def prune(tx: Transaction, *, ended_before: float, up_to: int) -> int:
    """Delete up to a batch of finished runs that ended before a time, or have their place up to `up_to`; answers how
    many."""
    roots = tx.rows(SQL["prunable"], (ended_before, up_to, BATCH))
    last = 0
    for (run_id,) in roots:
        last = max(last, _delete(tx, run_id))
    if roots:
        tx.execute(SQL["delete_orphan_blobs"])
        _remember(tx, last)
    return len(roots)


def prune_flows(tx: Transaction, *, at: float, saved_before: float, up_to: int) -> list[str]:
    """Delete up to a batch of unlisted flows that no run and no other flow refers to any more, where they were saved
    before a time or have their place up to `up_to`; answers their ids, which other flows may get from now on."""
    flow_ids = [str(flow_id) for (flow_id,) in tx.rows(SQL["prunable_flows"], (saved_before, up_to, BATCH))]
    for flow_id in flow_ids:
        tx.execute(SQL["delete_versions"], (flow_id,))
        tx.execute(SQL["delete_flow"], (flow_id,))
        tx.event("flow.pruned", at, flow_id=flow_id)
    return flow_ids


def prune_entries(tx: Transaction, *, made_before: float, up_to: int) -> int:
    """Delete up to a batch of the journal's entries that are of no run, where they were made before a time or have
    their place up to `up_to`; answers how many."""
    gone = tx.rows(SQL["delete_entries_of_no_run"], (made_before, up_to, BATCH))
    if gone:
        _remember(tx, max(seq for (seq,) in gone))
    return len(gone)


def prune_cache(tx: Transaction, *, at: float) -> int:
    """Delete up to a batch of cached outputs whose time is over; answers how many."""
    gone = tx.rows(SQL["delete_cached"], (at, BATCH))
    if gone:
        tx.execute(SQL["delete_orphan_blobs"])
    return len(gone)


def _remember(tx: Transaction, last: int) -> None:
    _, before = tx.row(SQL["journal_bounds"])
    if last > before:
        tx.execute(SQL["put_setting"], (_PRUNED, str(last)))


def _delete(tx: Transaction, run_id: str) -> int:
    """Delete a run and its sub-flows; answers the place of their last entry."""
    last = tx.row(SQL["last_of_run"], (run_id,))[0] or 0
    for (child,) in tx.rows(SQL["children"], (run_id,)):
        last = max(last, _delete(tx, child))
    tx.execute(SQL["delete_events"], (run_id,))
    tx.execute(SQL["delete_tasks"], (run_id,))
    tx.execute(SQL["delete_dependencies"], (run_id,))
    tx.execute(SQL["delete_usage"], (run_id,))
    tx.execute(SQL["delete_mirror"], (run_id,))
    tx.execute(SQL["forget_latest"], (run_id,))
    tx.execute(SQL["delete_run"], (run_id,))
    return int(last)
