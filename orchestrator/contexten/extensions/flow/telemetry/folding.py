"""From the journal's entries to measures: one look at each entry when it is committed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ..execution.run import RunExecution
from ..store import Event
from .measures import Measures

MOST_ATTEMPTS = 100_000  # remembered: those of runs that another server took over are not heard of again
UNKNOWN = "unknown"

_K = TypeVar("_K")
_V = TypeVar("_V")
_Unit = tuple[str | None, str | None, int | None]


class Fold:
    """Tells measures what a process recorded. Used on its event loop only.

    What an entry does not say itself, such as since when its run waits, the executions know: entries are folded before
    who waits for their commit goes on.
    """

    def __init__(self, measures: Measures, executions: Callable[[], Mapping[str, RunExecution]]) -> None:
        """`executions` answers the runs under way in this process."""
        self._measures = measures
        self._executions = executions
        self._attempts: dict[_Unit, tuple[float, str]] = {}
        """When the try under way began, and whose it is."""
        self._sub_flows: dict[str, None] = {}
        """Runs of sub-flows that were recorded here and have not ended."""
        self._folds: dict[str, Callable[[Event], None]] = {
            "run.scheduled": self._run_scheduled,
            "run.completed": self._run_ended,
            "run.failed": self._run_ended,
            "run.cancelled": self._run_ended,
            "task.running": self._attempt_began,
            "task.retrying": self._retrying,
            "task.completed": self._attempt_ended,
            "task.failed": self._attempt_ended,
            "task.cancelled": self._attempt_ended,
            "task.usage": self._used,
            **{f"trigger.{outcome}": self._delivered for outcome in ("delivered", "started", "filtered", "failed")},
        }

    def __call__(self, events: Sequence[Event]) -> None:
        """Take the entries of one commit."""
        folds = self._folds
        for event in events:
            fold = folds.get(event.type)
            if fold is not None:
                fold(event)

    # Runs
    def _run_scheduled(self, event: Event) -> None:
        data, run_id = event.data or "", event.run_id or ""
        if '"version"' not in data:  # it goes on, rather than being new
            return
        if '"parent_run_id"' in data:
            _remember(self._sub_flows, run_id, None)
        else:
            self._measures.run_submitted(event.flow_id or UNKNOWN)

    def _run_ended(self, event: Event) -> None:
        run_id = event.run_id or ""
        execution = self._executions().get(run_id)
        is_sub_flow = run_id in self._sub_flows
        self._sub_flows.pop(run_id, None)
        if is_sub_flow or (execution is not None and execution.claimed.parent_run_id is not None):
            return
        wait_s = duration_s = None
        if execution is not None:
            claimed = execution.claimed
            wait_s = max(0.0, claimed.started_at - claimed.created_at)
            duration_s = max(0.0, event.at - claimed.started_at)
        state = event.type.removeprefix("run.")
        kind = _kind(event) if state == "failed" else None
        self._measures.run_ended(event.flow_id or UNKNOWN, state, kind, wait_s, duration_s)

    # Attempts
    def _attempt_began(self, event: Event) -> None:
        if event.attempt is None:  # a for_each: its items are tried
            return
        execution = self._executions().get(event.run_id or "")
        unit = execution.tasks.find(event.task or "", event.item) if execution is not None else None
        agent = (unit.row.agent if unit is not None else None) or UNKNOWN
        _remember(self._attempts, (event.run_id, event.task, event.item), (event.at, agent))

    def _attempt_ended(self, event: Event) -> None:
        attempt = self._attempts.pop((event.run_id, event.task, event.item), None)
        if attempt is None:  # it ended without a try, or as a whole
            return
        at, agent = attempt
        outcome = event.type.removeprefix("task.").replace("retrying", "failed")
        kind = _kind(event) if outcome == "failed" else None
        self._measures.attempt_ended(agent, outcome, kind, max(0.0, event.at - at))

    def _retrying(self, event: Event) -> None:
        self._attempt_ended(event)
        self._measures.task_retried(_kind(event))

    # The rest
    def _used(self, event: Event) -> None:
        told = json.loads(event.data or "{}")
        cost_usd = told.get("cost_usd")
        self._measures.model_used(
            str(told.get("model") or UNKNOWN),
            _count(told.get("model_calls", 1)),
            _count(told.get("input_tokens")),
            _count(told.get("output_tokens")),
            max(0.0, float(cost_usd)) if isinstance(cost_usd, int | float) else None,
        )

    def _delivered(self, event: Event) -> None:
        self._measures.trigger_delivered(event.type.removeprefix("trigger."))


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    known[key] = value
    if len(known) > MOST_ATTEMPTS:
        del known[next(iter(known))]


def _kind(event: Event) -> str:
    data = json.loads(event.data or "{}")
    return str(data.get("kind") or data.get("error", {}).get("kind") or UNKNOWN)


def _count(value: object) -> int:
    return max(0, int(value)) if isinstance(value, int | float) else 0
