"""Outputs that serve equal tasks of other runs: kept in the transaction of the completion that made them."""

from __future__ import annotations

import sqlite3

from .moves import columns
from .records import CachedOutput, RunMove, StoredText
from .sql import SQL
from .writer import Transaction


def record(tx: Transaction, move: RunMove) -> None:
    """Keep the outputs that a move brings, in place of earlier ones, and count those that served."""
    for entry in move.cached:
        row = (entry.key, move.run_id, *columns(tx, entry.output), move.at, move.at + entry.ttl_s)
        tx.execute(SQL["put_cached"], row)
    if move.cache_hits:
        tx.execute(SQL["count_cache_hits"], (move.cache_hits,))


def cached_output(row: sqlite3.Row) -> CachedOutput:
    """What `find_cached` found."""
    output = StoredText(row["body"], row["output_digest"], row["output_bytes"])
    return CachedOutput(output, run_id=row["run_id"], recorded_at=row["recorded_at"])
