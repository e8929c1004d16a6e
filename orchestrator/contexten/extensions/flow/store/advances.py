"""What the owner of a run records: the moves of its tasks, and its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..states import RunState
from .cache import record
from .claims import claim_one, follow
from .moves import end_row, enter_logs, move_run, move_task, task_row
from .records import RunMove
from .sql import SQL
from .submissions import insert
from .writer import Refused, Transaction

REQUEST_PENDING = -1
"""What `advance` answers where the run does not wait or pause after all, since it was asked for something meanwhile."""


_PARKED = (RunState.WAITING, RunState.PAUSED)


class Advance:
    """The change that `advance` makes; those of one group are made together, a statement a table."""

    __slots__ = ("move",)

    def __init__(self, move: RunMove) -> None:
        self.move = move

    def __call__(self, tx: Transaction) -> int:
        return advance(tx, self.move)

    @staticmethod
    def together(tx: Transaction, advances: Sequence[Advance]) -> list[int]:
        """Make all moves, or raise Refused where any of them is refused."""
        inserts: list[tuple[Any, ...]] = []
        updates: list[tuple[Any, ...]] = []
        guards: list[tuple[Any, ...]] = []
        ends: list[tuple[Any, ...]] = []
        cursors = []
        for change in advances:
            move = change.move
            if move.children or move.to in _PARKED:
                cursors.append(advance(tx, move))
                continue
            for place, task in enumerate(move.tasks):
                if move.logs:
                    enter_logs(tx, move, place)
                _, is_new, row = task_row(tx, move.run_id, move.flow_id, task, move.at)
                (inserts if is_new else updates).append(row)
            enter_logs(tx, move, len(move.tasks))
            if move.cached or move.cache_hits:
                record(tx, move)
            if move.to is None:
                guards.append((move.completed, tx.seq, move.run_id, move.fence))
            else:
                ends.append(end_row(tx, move))
            cursors.append(tx.seq)
        for statement, rows in (
            (SQL["insert_task"], inserts),
            (SQL["update_task"], updates),
            (SQL["advance_run"], guards),
            (SQL["end_run"], ends),
        ):
            if rows:
                tx.cursor.executemany(statement, rows)
                if tx.cursor.rowcount != len(rows):
                    raise Refused("a run or a task is no longer in the expected state")
        return cursors


def advance(tx: Transaction, move: RunMove) -> int:
    """Make the moves of an owned run; answers its cursor, or REQUEST_PENDING.

    Raises Refused where the run is no longer running under the fence.
    """
    run_id, at = move.run_id, move.at
    to = move.to
    held = tx.row(SQL["run_fence"], (run_id,))
    if held is None or held[1] != move.fence:  # before rows are met that a successor has made
        raise Refused(f"run {run_id} is no longer running under fence {move.fence}")
    if to in _PARKED:
        request = tx.row(SQL["run_for_request"], (run_id,))[2]
        if request != ("pause" if to is RunState.PAUSED else None):
            to = None
    for place, task in enumerate(move.tasks):
        enter_logs(tx, move, place)
        move_task(tx, run_id, move.flow_id, task, at)
    enter_logs(tx, move, len(move.tasks))
    if move.cached or move.cache_hits:
        record(tx, move)
    if to is None:
        tx.execute(SQL["advance_run"], (move.completed, tx.seq, run_id, move.fence))
    else:
        move_run(tx, move)
    if tx.cursor.rowcount != 1:
        raise Refused(f"run {run_id} is no longer running under fence {move.fence}")
    if to in _PARKED:
        follow(tx, run_id, to, at, move.wake_at)
    for child in move.children:
        insert(tx, child)
        claim_one(tx, child.run_id, child.flow_id, _owner(tx, run_id), at)
    return REQUEST_PENDING if to is None and move.to is not None else tx.seq


def _owner(tx: Transaction, run_id: str) -> str:
    return str(tx.row(SQL["run_owner"], (run_id,))[0])
