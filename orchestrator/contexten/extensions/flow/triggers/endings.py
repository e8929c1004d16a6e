"""The ends of runs, delivered to the triggers that wait for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..clock import iso, make_id
from ..errors import TooManyDeliveries
from ..states import TERMINAL_RUN_STATES
from ..store import Event, Transaction
from ..store.sql import SQL
from ..store.triggers import NewDelivery, accept, miss

ENDS = frozenset(f"run.{state}" for state in TERMINAL_RUN_STATES)
"""The journal's entries that end a run."""


def take_ends(tx: Transaction, events: Sequence[Event]) -> None:
    """Deliver the ends of runs in the change that takes them from the journal. The run of a sub-flow is part of another
    run and tells nobody."""
    for event in events:
        state = event.type.removeprefix("run.")
        wanting = tx.rows(SQL["triggers_of_end"], (event.at, event.flow_id, state))
        run = tx.row(SQL["ended_run"], (event.run_id,)) if wanting else None
        if run is None or run[4] is not None:
            continue
        payload = json.dumps(_payload(run), ensure_ascii=False)
        for trigger_id, max_pending in wanting:
            end = NewDelivery(
                trigger_id=trigger_id,
                delivery_id=make_id("dlv_", event.at),
                event_id=f"{event.run_id}:{state}",
                type=event.type,
                payload=payload,
                at=event.at,
                max_pending=max_pending,
            )
            try:
                accept(tx, end)
            except TooManyDeliveries:
                miss(tx, trigger_id, event.at, 1)


def _payload(run: Any) -> dict[str, Any]:
    """What is told of a run; an output over 64 KiB is left out."""
    run_id, flow_id, name, state, _, created_at, started_at, ended_at, error, reason, output = run
    return {
        "run_id": run_id,
        "flow_id": flow_id,
        "name": name,
        "state": state,
        "created_at": iso(created_at),
        "started_at": iso(started_at),
        "ended_at": iso(ended_at),
        "error": json.loads(error) if error else None,
        "reason": reason,
        "output": json.loads(output) if output else None,
    }
