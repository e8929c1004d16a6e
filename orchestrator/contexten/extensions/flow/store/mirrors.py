"""Runs that another program is to show: which of them nobody shows now, and that one's end is shown."""

from __future__ import annotations

import json

from .sql import SQL
from .writer import Transaction

BATCH = 100  # runs taken at once


def take_mirrors(tx: Transaction, server_id: str) -> list[str]:
    """Take the runs that no living server shows, up to a batch; answers their ids. None where this process's lease has
    lapsed."""
    if not tx.may_own(server_id):
        return []
    free = [run_id for (run_id,) in tx.rows(SQL["free_mirrors"], (server_id, BATCH))]
    return [run_id for run_id in free if tx.execute(SQL["take_mirror"], (server_id, run_id)).rowcount]


def tell_mirror(tx: Transaction, run_id: str, flow_id: str, at: float, link: dict[str, str]) -> None:
    """Enter in the journal where the run is shown."""
    tx.event("run.mirrored", at, run_id=run_id, flow_id=flow_id, data=json.dumps(link))


def end_mirror(tx: Transaction, run_id: str, server_id: str) -> None:
    """The run's end is shown, or cannot be."""
    tx.execute(SQL["end_mirror"], (run_id, server_id))
