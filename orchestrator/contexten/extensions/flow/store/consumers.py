"""How far somebody has read who makes something of the journal's entries: one place for all servers of a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from .sql import SQL
from .writer import Event, Transaction

BEGUN = "consumer.begun"
"""The journal's entry by which all servers hear that a consumer has something to do from now on."""

Take: TypeAlias = Callable[[Transaction, Sequence[Event]], None]
"""What is made of entries, in the transaction that moves the place past them. It may be run twice, so it does nothing
but SQL."""


def begin(tx: Transaction, name: str, at: float) -> None:
    """Let a consumer hear of what is entered from now on. Nothing changes where it does already."""
    if tx.execute(SQL["insert_consumer"], (name, tx.seq)).rowcount:
        tx.event(BEGUN, at, data=json.dumps({"name": name}))


def end(tx: Transaction, name: str) -> None:
    """Nobody needs that consumer any more."""
    tx.execute(SQL["delete_consumer"], (name,))


def advance(tx: Transaction, name: str, before: int, to: int, events: Sequence[Event], take: Take) -> bool:
    """Take entries and move the place; answers False, and does nothing, where it is not at `before` any more."""
    if not tx.execute(SQL["move_consumer"], (to, name, before)).rowcount:
        return False
    if events:
        take(tx, events)
    return True


def types_parameter(types: Collection[str]) -> str:
    """Types of entries as `read_entries_of` takes them."""
    return json.dumps(sorted(types))
