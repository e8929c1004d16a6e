"""What runs wait for before they start: other runs, or the first run of a flow."""

from __future__ import annotations

import json

from ..errors import InvalidArguments, Issue
from ..states import RunState
from .records import NewRun
from .requests import end_idle
from .sql import SQL
from .writer import Transaction

SETTLE_BATCH = 200  # runs whose dependencies have ended, looked at in one change


def record(tx: Transaction, run: NewRun) -> bool:
    """Record what a new run waits for; answers whether it must. Before the run is its flow's latest.

    Raises InvalidArguments where an id is neither a run nor a flow, or where runs would wait for each other.
    """
    for position, name in enumerate(run.dependencies):
        on_run, ended = _resolve(tx, run, name, f"/dependencies/{position}")
        tx.execute(SQL["insert_dependency"], (run.run_id, name, on_run, run.on_dependency_failure, ended))
    if run.parent_run_id is None:
        tx.execute(SQL["bind_dependencies"], (run.run_id, run.flow_id))
        if tx.cursor.rowcount and run.dependencies:
            _refuse_cycle(tx, run)
    return bool(run.dependencies)


def _resolve(tx: Transaction, run: NewRun, name: str, path: str) -> tuple[str | None, str | None]:
    """The run that is meant (None: the flow's first, which is still to come), and how it ended."""
    row = tx.row(SQL["dependency_run"], (name,))
    if row is None:
        flow = tx.row(SQL["flow_latest"], (name,))
        if flow is None:
            raise InvalidArguments(
                f"The dependency {name!r} is neither a run nor a flow.",
                next="Call list_flows() or list_flows(kind='runs') for the ids.",
                issues=[Issue(path=path, code="unknown_dependency", message="no such run or flow", got=name)],
            )
        if flow[0] is None:
            if name == run.flow_id:
                raise _cycle([run.flow_id, run.flow_id])
            return None, None
        row = tx.row(SQL["dependency_run"], (flow[0],))
    run_id, state = row
    return run_id, state if RunState(state).is_terminal else None


def _refuse_cycle(tx: Transaction, run: NewRun) -> None:
    """A run that others waited for before it was there may wait for one of them."""
    before: dict[str, str] = {}
    trail = [run.run_id]
    while trail:
        current = trail.pop()
        for (other,) in tx.rows(SQL["open_dependencies"], (current,)):
            if other == run.run_id:
                path = [other, current]
                while path[-1] != run.run_id:
                    path.append(before[path[-1]])
                raise _cycle(path[::-1])
            if other not in before:
                before[other] = current
                trail.append(other)


def _cycle(path: list[str]) -> InvalidArguments:
    text = " -> ".join(path)
    return InvalidArguments(
        f"The runs would wait for each other for ever: {text}.",
        next="Leave out one of these dependencies.",
        issues=[Issue(path="/dependencies", code="cycle", message=text)],
    )


def settle(tx: Transaction, at: float) -> bool:
    """Ready the queued runs whose dependencies have all ended; fail those that depend on a failure. Answers whether
    more may be left."""
    ended = tx.rows(SQL["runs_with_ended_dependencies"], (SETTLE_BATCH,))
    for (run_id,) in ended:
        failed = tx.row(SQL["failed_dependency"], (run_id,))
        if failed is not None:
            name, ended = failed
            _fail(tx, run_id, f"it depends on {name}, which {_WORDS[RunState(ended)]}", at)
            continue
        tx.execute(SQL["close_dependencies"], (run_id,))
        if tx.row(SQL["has_open_dependency"], (run_id,)) is None:
            tx.execute(SQL["unblock_run"], (run_id, "dependencies"))
    return len(ended) == SETTLE_BATCH


_WORDS = {RunState.FAILED: "failed", RunState.CANCELLED: "was cancelled"}


def _fail(tx: Transaction, run_id: str, reason: str, at: float) -> None:
    flow_id = tx.row(SQL["run_flow"], (run_id,))[0]
    error = {"kind": "dependency_failed", "message": f"The run never started: {reason}.", "task": ""}
    end_idle(tx, run_id, flow_id, at, to=RunState.FAILED, reason=reason, error=json.dumps(error, ensure_ascii=False))
