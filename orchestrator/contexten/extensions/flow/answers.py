"""Answers: what the store holds, as the views that every entrance shows."""

from __future__ import annotations

import difflib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .clock import Clock
from .definition import Plan
from .errors import FlowNotFound, IllegalMove, InvalidArguments, Issue, RunNotFound, TaskNotFound
from .states import RunState, TaskState
from .store import NewRun, RunMove, Store, Submitted
from .store.cursors import decode, encode
from .store.sql import SQL
from .views import EventView, FlowPage, FlowView, Progress, RunError, RunPage, RunView, TaskView

MAX_PAGE = 200
_LAST = 1 << 62
_POLL_S = {RunState.SCHEDULED: 2.0, RunState.RUNNING: 1.0, RunState.PAUSED: 30.0}
_STATES = [str(state) for state in RunState]


def iso(at: float | None) -> str | None:
    """A time as people and programs read it: ISO 8601, UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _error(text: str | None) -> RunError | None:
    if text is None:
        return None
    data = json.loads(text)
    return RunError(
        kind=data["kind"],
        message=data["message"],
        task=data.get("task") or None,
        attempt=data.get("attempt"),
        details=data.get("details"),
    )


class Answers:
    """Reads the store. `note` adds what only the process knows of a run that has not ended."""

    def __init__(self, store: Store, clock: Clock, note: Callable[[RunState], str | None]) -> None:
        self._store = store
        self._clock = clock
        self._note = note

    # Cursors and pages
    def cursor(self, seq: int) -> str:
        """The cursor of a place in the journal."""
        return encode(self._store.identity, seq)

    async def place(self, cursor: str | None) -> tuple[int, bool]:
        """The place of a cursor, and whether it must be answered with a snapshot, since it is not of this database."""
        if cursor is None:
            return 0, False
        seq = decode(self._store.identity, cursor)
        last = await self._store.row(SQL["last_event"])
        if seq is None or last is None or seq > int(last[0]):
            return 0, True
        return seq, False

    def _page(self, page: str | None) -> int:
        if page is None:
            return _LAST
        seq = decode(self._store.identity, page)
        if seq is None:
            raise InvalidArguments(
                "That page is not of this list.",
                next="Pass next_page of the last answer, or leave page out to begin again.",
                issues=[Issue(path="/page", code="invalid_page", message="no page of this database", got=page[:100])],
            )
        return seq

    @staticmethod
    def _check_list(status: str | None, states: Sequence[str], limit: int) -> None:
        if status is not None and status not in states:
            raise InvalidArguments(
                f"There is no state {status!r}.",
                next=f"Use one of {', '.join(states)}.",
                issues=[
                    Issue(
                        path="/status_filter",
                        code="unknown_state",
                        message="no such state",
                        expected=states,
                        got=status,
                    )
                ],
            )
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidArguments(
                f"limit is {limit}; it goes from 1 to {MAX_PAGE}.",
                issues=[Issue(path="/limit", code="out_of_range", message=f"1 to {MAX_PAGE}", got=limit)],
            )

    # Flows
    async def flow(self, flow_id: str, version: int | None) -> FlowView:
        """A flow with its definition and latest run. Raises FlowNotFound."""
        row = await self._store.row(SQL["read_flow"], (version, flow_id))
        if row is None:
            raise await self.no_flow(flow_id, version)
        latest = await self.runs_by_id([row["latest_run_id"]]) if row["latest_run_id"] else {}
        run = latest.get(row["latest_run_id"])
        return FlowView(
            flow_id=row["flow_id"],
            name=row["name"],
            description=row["description"],
            version=version or row["version"],
            tags=json.loads(row["tags"]),
            state=run.state if run else "idle",
            created_at=iso(row["created_at"]) or "",
            updated_at=iso(row["updated_at"]) or "",
            latest_run=run,
            runs=row["runs"],
            definition=json.loads(row["definition"]),
        )

    async def no_flow(self, flow_id: str, version: int | None = None) -> FlowNotFound:
        """The error for a flow that is not there, with the nearest id that is."""
        known = [str(row[0]) for row in await self._store.rows(SQL["flow_ids"])]
        if version is not None and flow_id in known:
            return FlowNotFound(
                f"The flow {flow_id!r} has no version {version}.",
                next=f"Call get_flow_status(flow_id={flow_id!r}) for its latest version.",
            )
        near = _nearest(flow_id, known)
        hint = f" Did you mean {near!r}?" if near else ""
        return FlowNotFound(f"There is no flow {flow_id!r}.{hint}", next="Call list_flows() to see the flows.")

    async def flows(self, status: str | None, tag: str | None, limit: int, page: str | None) -> FlowPage:
        """A page of flows, newest first. Raises InvalidArguments."""
        self._check_list(status, ["idle", *_STATES], limit)
        rows = await self._store.rows(
            SQL["list_flows"], {"before": self._page(page), "status": status, "tag": tag, "limit": limit + 1}
        )
        latest = await self.runs_by_id([row["latest_run_id"] for row in rows if row["latest_run_id"]])
        flows = []
        for row in rows[:limit]:
            run = latest.get(row["latest_run_id"])
            flows.append(
                FlowView(
                    flow_id=row["flow_id"],
                    name=row["name"],
                    description=row["description"],
                    version=row["version"],
                    tags=json.loads(row["tags"]),
                    state=run.state if run else "idle",
                    created_at=iso(row["created_at"]) or "",
                    updated_at=iso(row["updated_at"]) or "",
                    latest_run=run,
                    runs=row["runs"],
                )
            )
        return FlowPage(flows=flows, next_page=self.cursor(rows[limit - 1]["seq"]) if len(rows) > limit else None)

    # Runs
    async def runs_by_id(self, run_ids: Sequence[str]) -> dict[str, RunView]:
        """Runs in brief, by id; those that are not there are left out."""
        if not run_ids:
            return {}
        rows = await self._store.rows(SQL["read_runs"], (json.dumps(run_ids),))
        return {row["run_id"]: self.run_view(row) for row in rows}

    async def latest_run_id(self, flow_id: str) -> str | None:
        """The flow's latest run. Raises FlowNotFound."""
        row = await self._store.row(SQL["read_flow"], (None, flow_id))
        if row is None:
            raise await self.no_flow(flow_id)
        latest: str | None = row["latest_run_id"]
        return latest

    async def runs(
        self, status: str | None, flow_id: str | None, tag: str | None, limit: int, page: str | None
    ) -> RunPage:
        """A page of runs, newest first. Raises InvalidArguments."""
        self._check_list(status, _STATES, limit)
        rows = await self._store.rows(
            SQL["list_runs"],
            {"before": self._page(page), "status": status, "flow_id": flow_id, "tag": tag, "limit": limit + 1},
        )
        return RunPage(
            runs=[self.run_view(row) for row in rows[:limit]],
            next_page=self.cursor(rows[limit - 1]["seq"]) if len(rows) > limit else None,
        )

    async def row(self, run_id: str) -> sqlite3.Row:
        """The run's row. Raises RunNotFound, with the nearest id."""
        row = await self._store.row(SQL["read_run"], (run_id,))
        if row is None:
            raise await self.no_run(run_id)
        return row

    async def no_run(self, run_id: str) -> RunNotFound:
        """The error for a run that is not there."""
        near = _nearest(run_id, [str(row[0]) for row in await self._store.rows(SQL["run_ids"])])
        hint = f" Did you mean {near!r}?" if near else ""
        return RunNotFound(f"There is no run {run_id!r}.{hint}", next="Call list_flows(kind='runs') to see the runs.")

    def run_view(self, row: sqlite3.Row, **more: Any) -> RunView:
        """A run's row as a view."""
        state = RunState(row["state"])
        end = row["ended_at"] or self._clock.timestamp()
        return RunView(
            run_id=row["run_id"],
            flow_id=row["flow_id"],
            name=row["name"],
            version=row["version"],
            state=state,
            progress=Progress(completed=row["completed"], total=row["total"]),
            cursor=self.cursor(row["cursor"]),
            next_poll_s=self.next_poll_s(state, row["wake_at"]),
            error=_error(row["error"]),
            failed_tasks=json.loads(row["failed_tasks"]) if row["failed_tasks"] else None,
            framework=row["framework"],
            priority=row["priority"],
            created_at=iso(row["created_at"]),
            started_at=iso(row["started_at"]),
            ended_at=iso(row["ended_at"]),
            duration_s=round(max(0.0, end - row["started_at"]), 3) if row["started_at"] else None,
            rerun_of=row["rerun_of"],
            parent_run_id=row["parent_run_id"],
            reason=row["reason"],
            note=self._run_note(state, row["request"]),
            has_output=state is RunState.COMPLETED or None,
            **more,
        )

    def new_run_view(self, run: NewRun, submitted: Submitted) -> RunView:
        """A run that was recorded just now."""
        state = RunState.RUNNING if submitted.has_started else RunState.SCHEDULED
        return RunView(
            run_id=run.run_id,
            flow_id=run.flow_id,
            name=run.name,
            version=run.version,
            state=state,
            progress=Progress(completed=len(run.taken_over), total=run.total),
            cursor=self.cursor(submitted.cursor),
            next_poll_s=self.next_poll_s(state, None),
            framework=run.framework,
            priority=run.priority,
            created_at=iso(run.created_at),
            rerun_of=run.rerun_of,
            note=None if submitted.has_started else self._note(state),
        )

    def ended_run_view(self, run: NewRun, end: RunMove, place: int, *, started_at: float, completed: int) -> RunView:
        """A run that ended just now, with its output; `end` is the move that ended it, at that place in the journal."""
        state = end.to or RunState.COMPLETED
        return RunView(
            run_id=run.run_id,
            flow_id=run.flow_id,
            name=run.name,
            version=run.version,
            state=state,
            progress=Progress(completed=completed, total=run.total),
            cursor=self.cursor(place),
            next_poll_s=0.0,
            error=_error(end.error),
            failed_tasks=json.loads(end.failed_tasks) if end.failed_tasks else None,
            framework=run.framework,
            priority=run.priority,
            created_at=iso(run.created_at),
            started_at=iso(started_at),
            ended_at=iso(end.at),
            duration_s=round(max(0.0, end.at - started_at), 3),
            rerun_of=run.rerun_of,
            reason=end.reason,
            has_output=state is RunState.COMPLETED or None,
            output=json.loads(end.output.text) if end.output is not None else None,
        )

    def _run_note(self, state: RunState, request: str | None) -> str | None:
        if state.is_terminal:
            return None
        if request == "cancel":
            return "a cancellation is under way"
        if request == "pause":
            return "it pauses when the tasks in flight have ended"
        return self._note(state)

    def next_poll_s(self, state: RunState, wake_at: float | None) -> float:
        """After how many seconds it makes sense to ask again; 0 when the run has ended."""
        if state.is_terminal:
            return 0.0
        if state is RunState.WAITING and wake_at is not None:
            return round(min(60.0, max(0.5, wake_at - self._clock.timestamp())), 1)
        return _POLL_S.get(state, 5.0)

    async def tasks(self, run_id: str, plan: Plan, after: int) -> tuple[list[TaskView], list[str]]:
        """The run's tasks in the order of the plan (those that changed after a place), and those under way."""
        rows = await self._store.rows(SQL["read_tasks"], (run_id, after))
        items: dict[str, dict[str, int]] = {}
        own: dict[str, sqlite3.Row] = {}
        for row in rows:
            if row["item"] < 0:
                own[row["task"]] = row
            else:
                count = items.setdefault(row["task"], {})
                count[row["state"]] = count.get(row["state"], 0) + 1
        views = []
        for name, node in plan.tasks.items():
            found = own.get(name)
            if found is not None:
                views.append(_task_view(found, node.stage, items.get(name)))
            elif after == 0:
                views.append(TaskView(name=name, stage=node.stage, state=TaskState.PENDING))
            elif name in items:
                views.append(TaskView(name=name, stage=node.stage, state=TaskState.RUNNING, items=items[name]))
        active = [view.name for view in views if view.state in ("running", "retrying", "waiting")]
        return views, active

    async def output(self, run_id: str, task: str, plan: Plan) -> str:
        """A task's output as JSON text. Raises TaskNotFound, IllegalMove."""
        if task not in plan.tasks:
            near = _nearest(task, list(plan.tasks))
            hint = f" Did you mean {near!r}?" if near else f" Its tasks: {', '.join(list(plan.tasks)[:20])}."
            raise TaskNotFound(
                f"The run {run_id} has no task {task!r}.{hint}",
                next=f"Call get_flow_status(run_id={run_id!r}, detail='tasks').",
            )
        row = await self._store.row(SQL["read_output"], (run_id, task))
        state = TaskState(row[0]) if row is not None else TaskState.PENDING
        if row is None or row[1] is None:
            raise IllegalMove(
                f"The task {task!r} of run {run_id} is {state} and has no output.",
                next=f"Call get_flow_status(run_id={run_id!r}, detail='tasks').",
            )
        return str(row[1])

    async def events(self, run_id: str | None, after: int, limit: int) -> list[EventView]:
        """Entries of the journal after a place, oldest first."""
        if run_id is None:
            rows = await self._store.rows(SQL["read_events"], (after, limit))
        else:
            rows = await self._store.rows(SQL["read_run_events"], (run_id, after, limit))
        return [
            EventView(
                cursor=self.cursor(row["seq"]),
                type=row["type"],
                at=iso(row["at"]) or "",
                run_id=row["run_id"] if run_id is None else None,
                task=row["task"],
                attempt=row["attempt"],
                item=row["item"],
                details=_details(row["data"]),
                actor=row["actor"],
            )
            for row in rows
        ]

    async def counts(self, query: str) -> dict[str, int]:
        """How many rows in each state."""
        return {str(row[0]): int(row[1]) for row in await self._store.rows(SQL[query])}


def _details(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    details: dict[str, Any] = json.loads(text)
    for name in ("wake_at", "until"):  # the journal keeps times as numbers
        if isinstance(details.get(name), int | float):
            details[name] = iso(details[name])
    return details


def _task_view(row: sqlite3.Row, stage: str, items: Mapping[str, int] | None) -> TaskView:
    started, ended = row["started_at"], row["ended_at"]
    return TaskView(
        name=row["task"],
        stage=stage,
        state=row["state"],
        attempts=row["attempts"],
        agent=row["agent"],
        started_at=iso(started),
        ended_at=iso(ended),
        duration_s=round(max(0.0, ended - started), 3) if started and ended else None,
        next_attempt_at=iso(row["wake_at"]),
        reason=row["reason"],
        error=_error(row["error"]) if row["state"] in ("failed", "retrying") else None,
        items=dict(items) if items else None,
        child_run_id=row["child_run_id"],
        output_bytes=row["output_bytes"],
        taken_over=bool(row["taken_over"]) or None,
    )


def _nearest(name: str, known: Sequence[str]) -> str | None:

    return next(iter(difflib.get_close_matches(name[:128], known, 1)), None)
