"""Cursors: places in the journal as clients hold them, opaque and bound to their database."""

from __future__ import annotations


def encode(database: str, seq: int) -> str:
    """The cursor for a place; `database` is the short id of the database."""
    return f"{database}.{seq}"


def decode(database: str, cursor: str) -> int | None:
    """The place, or None where the cursor is of another database or no cursor at all."""
    head, _, tail = cursor.partition(".")
    if head != database or not tail.isascii() or not tail.isdigit() or len(tail) > 18:
        return None
    return int(tail)
