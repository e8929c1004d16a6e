"""Answers: what the store holds, as the views that every entrance shows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ..clock import Clock, iso
from ..definition import Plan
from ..errors import FlowNotFound, IllegalMove, RunNotFound, TaskNotFound
from ..nearest import nearest_name
from ..scheduling.forecast import ExpectedStart
from ..states import RunState, TaskState
from ..store import NewRun, RunMove, Store, Submitted
from ..store.cursors import decode, encode
from ..store.sql import SQL
from ..views import (
    DependencyView,
    EventList,
    FlowPage,
    FlowView,
    Progress,
    RunPage,
    RunView,
    TaskView,
    UsageView,
)
from .paging import check_list, containing, list_name, place_of_page
from .rendering import deadline_view, engine_fields, event_view, flow_view, shown_error, task_view

_POLL_S = {RunState.SCHEDULED: 2.0, RunState.RUNNING: 1.0, RunState.PAUSED: 30.0}
CANCELLING = "a cancellation is under way"
_UNDER_WAY = {"cancel": CANCELLING, "pause": "it pauses when the tasks in flight have ended"}
_OBEYED = {"cancel": "is cancelled", "pause": "is paused"}
_STATES = [str(state) for state in RunState]


class Answers:
    """Reads the store. `obstacle` tells why no run can move now, where none can: only the process knows."""

    def __init__(self, store: Store, clock: Clock, obstacle: Callable[[], str | None]) -> None:
        self._store = store
        self._clock = clock
        self._obstacle = obstacle

    # Cursors
    def cursor(self, seq: int) -> str:
        """The cursor of a place in the journal."""
        return encode(self._store.identity, seq)

    async def place(self, cursor: str | None, run_id: str | None = None) -> tuple[int, bool]:
        """The place after which to answer (of one run, or of the whole journal), and whether that is a snapshot: the
        cursor is not of this database, or entries after it were pruned.

        A run's entries are pruned all at once, with it: a place among them misses none of them, however old it is.
        """
        if cursor is None:
            return 0, False
        seq = decode(self._store.identity, cursor)
        row = await self._store.row(SQL["journal_bounds"])
        last, pruned = (int(row[0]), int(row[1])) if row else (0, 0)
        if seq is None or not last or seq > last:
            return 0, True
        if seq >= pruned:
            return seq, False
        if run_id is None:
            return pruned, True
        is_of_run = await self._store.row(SQL["is_of_run"], (seq, run_id)) is not None
        return (seq, False) if is_of_run else (0, True)

    # Flows
    async def flow(self, flow_id: str, version: int | None) -> FlowView:
        """A flow with its definition and latest run. Raises FlowNotFound."""
        row = await self._store.row(SQL["read_flow"], (version, flow_id))
        if row is None:
            raise await self.no_flow(flow_id, version)
        latest = await self.runs_by_id([row["latest_run_id"]]) if row["latest_run_id"] else {}
        run = latest.get(row["latest_run_id"])
        return flow_view(row, run).model_copy(
            update={"version": version or row["version"], "definition": json.loads(row["definition"])}
        )

    async def no_flow(self, flow_id: str, version: int | None = None) -> FlowNotFound:
        """The error for a flow that is not there, with the nearest id that is."""
        known = [str(row[0]) for row in await self._store.rows(SQL["flow_ids"])]
        if version is not None and flow_id in known:
            return FlowNotFound(
                f"The flow {flow_id!r} has no version {version}.",
                next=f"Call get_flow_status(flow_id={flow_id!r}) for its latest version.",
            )
        near = nearest_name(flow_id, known)
        hint = f" Did you mean {near!r}?" if near else ""
        return FlowNotFound(f"There is no flow {flow_id[:200]!r}.{hint}", next="Call list_flows() to see the flows.")

    async def flows(
        self, status: str | None, tag: str | None, search: str | None, limit: int, page: str | None
    ) -> FlowPage:
        """A page of flows, newest first. Raises InvalidArguments."""
        status = check_list(status, ["idle", *_STATES], limit)
        name = list_name(self._store.identity, "flows", status, tag, search)
        rows = await self._store.rows(
            SQL["list_flows"],
            {
                "before": place_of_page(name, page),
                "status": status,
                "tag": tag,
                "search": containing(search),
                "limit": limit + 1,
            },
        )
        latest = await self.runs_by_id([row["latest_run_id"] for row in rows if row["latest_run_id"]])
        flows = [flow_view(row, latest.get(row["latest_run_id"])) for row in rows[:limit]]
        return FlowPage(flows=flows, next_page=encode(name, rows[limit - 1]["seq"]) if len(rows) > limit else None)

    # Runs
    async def runs_by_id(self, run_ids: Sequence[str]) -> dict[str, RunView]:
        """Runs in brief, by id; those that are not there are left out."""
        if not run_ids:
            return {}
        rows = await self._store.rows(SQL["read_runs"], (json.dumps(run_ids),))
        return {run.run_id: run for run in self._run_views(rows)}

    async def latest_run_id(self, flow_id: str) -> str | None:
        """The flow's latest run. Raises FlowNotFound."""
        row = await self._store.row(SQL["read_flow"], (None, flow_id))
        if row is None:
            raise await self.no_flow(flow_id)
        latest: str | None = row["latest_run_id"]
        return latest

    async def runs(
        self,
        status: str | None,
        flow_id: str | None,
        tag: str | None,
        search: str | None,
        limit: int,
        page: str | None,
    ) -> RunPage:
        """A page of runs, newest first. Raises InvalidArguments, FlowNotFound."""
        status = check_list(status, _STATES, limit)
        name = list_name(self._store.identity, "runs", status, flow_id, tag, search)
        rows = await self._store.rows(
            SQL["list_runs"],
            {
                "before": place_of_page(name, page),
                "status": status,
                "flow_id": flow_id,
                "tag": tag,
                "search": containing(search),
                "limit": limit + 1,
            },
        )
        if not rows and flow_id is not None:
            await self.latest_run_id(flow_id)  # whether it is there
        return RunPage(
            runs=self._run_views(rows[:limit]),
            next_page=encode(name, rows[limit - 1]["seq"]) if len(rows) > limit else None,
        )

    async def row(self, run_id: str) -> sqlite3.Row:
        """The run's row. Raises RunNotFound, with the nearest id."""
        row = await self._store.row(SQL["read_run"], (run_id,))
        if row is None:
            raise await self.no_run(run_id)
        return row

    async def root_run_id(self, row: sqlite3.Row) -> str | None:
        """The run with which a sub-flow's run is paused and resumed; None for a run that is no sub-flow's."""
        root: str | None = None
        while row["parent_run_id"] is not None:
            root = row["parent_run_id"]
            row = await self.row(root)
        return root

    async def no_run(self, run_id: str) -> RunNotFound:
        """The error for a run that is not there."""
        near = nearest_name(run_id, [str(row[0]) for row in await self._store.rows(SQL["run_ids"])])
        hint = f" Did you mean {near!r}?" if near else ""
        return RunNotFound(
            f"There is no run {run_id[:200]!r}.{hint}", next="Call list_flows(kind='runs') to see the runs."
        )

    def _run_views(self, rows: Sequence[sqlite3.Row]) -> list[RunView]:
        obstacle = cache(self._obstacle)  # asked once an answer
        return [self.run_view(row, obstacle=obstacle) for row in rows]

    def run_view(
        self,
        row: sqlite3.Row,
        *,
        obstacle: Callable[[], str | None] | None = None,
        start: ExpectedStart | None = None,
    ) -> RunView:
        """A run's row as a view; `start` is when a queued one will probably start, for its deadline."""
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
            error=shown_error(row["error"]),
            failed_tasks=json.loads(row["failed_tasks"]) if row["failed_tasks"] else None,
            **engine_fields(row["framework"]),
            priority=row["priority"],
            created_at=iso(row["created_at"]),
            started_at=iso(row["started_at"]),
            ended_at=iso(row["ended_at"]),
            duration_s=round(max(0.0, end - row["started_at"]), 3) if row["started_at"] else None,
            rerun_of=row["rerun_of"],
            parent_run_id=row["parent_run_id"],
            deadline=deadline_view(row, self._clock.timestamp(), start),
            held_by=row["blocked"] if state is RunState.SCHEDULED else None,
            reason=row["reason"],
            note=self._run_note(state, row["request"], obstacle or self._obstacle),
            has_output=state is RunState.COMPLETED or None,
        )

    async def dependencies(self, run_id: str) -> list[DependencyView] | None:
        """What a run waits for, or waited for; None where it is nothing."""
        rows = await self._store.rows(SQL["read_dependencies"], (run_id,))
        return [
            DependencyView(
                id=row["on_id"], run_id=row["on_run_id"], state=row["ended"] or "waiting", on_failure=row["on_failure"]
            )
            for row in rows
        ] or None

    async def usage(self, run_id: str) -> list[UsageView] | None:
        """What language models used in a run so far; None where it is nothing."""
        return [UsageView(**dict(row)) for row in await self._store.rows(SQL["usage_of_run"], (run_id,))] or None

    async def monitor_url(self, run_id: str) -> str | None:
        """The run's page in Prefect; None where Prefect was not told of it yet."""
        row = await self._store.row(SQL["monitor_url"], (run_id,))
        return str(row[0]) if row is not None and row[0] is not None else None

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
            **engine_fields(run.framework),
            priority=run.priority,
            created_at=iso(run.created_at),
            rerun_of=run.rerun_of,
            deadline=deadline_view(_timing(run), self._clock.timestamp()),
            held_by="dependencies" if run.dependencies else None,
            note=self._run_note(state, None, self._obstacle) if not submitted.has_started else None,
        )

    def ended_run_view(self, run: NewRun, end: RunMove, place: int, *, started_at: float, completed: int) -> RunView:
        """A run without a deadline that ended just now, with its output; `end` is the move that ended it, at that place
        in the journal."""
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
            error=shown_error(end.error),
            failed_tasks=json.loads(end.failed_tasks) if end.failed_tasks else None,
            **engine_fields(run.framework),
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

    @staticmethod
    def _run_note(state: RunState, request: str | None, obstacle: Callable[[], str | None]) -> str | None:
        if state.is_terminal or state is RunState.PAUSED:
            return None
        if (why := obstacle()) is not None:
            return f"{why}; the run {_OBEYED.get(request or '', 'goes on')} when one starts"
        return _UNDER_WAY.get(request or "")

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
                views.append(task_view(found, node, items.get(name)))
            elif after == 0 or name in items:
                views.append(
                    TaskView(
                        name=name,
                        stage=node.stage,
                        on_failure_of=node.on_failure_of,
                        state=TaskState.RUNNING if name in items else TaskState.PENDING,
                        items=items.get(name),
                    )
                )
        active = [view.name for view in views if view.state in ("running", "retrying", "waiting")]
        return views, active

    async def output(self, run_id: str, task: str, plan: Plan) -> str:
        """A task's output as JSON text. Raises TaskNotFound, IllegalMove."""
        if task not in plan.tasks:
            near = nearest_name(task, list(plan.tasks))
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

    async def events(self, run_id: str | None, after: int, limit: int) -> EventList:
        """Entries of the journal after a place, oldest first."""
        if run_id is None:
            rows = await self._store.rows(SQL["read_events"], (after, limit))
        else:
            rows = await self._store.rows(SQL["read_run_events"], (run_id, after, limit))
        return EventList(event_view(row, self.cursor(row["seq"]), of_run=run_id is not None) for row in rows)

    async def counts(self, query: str) -> dict[str, int]:
        """How many rows in each state."""
        return {str(row[0]): int(row[1]) for row in await self._store.rows(SQL[query])}


def _timing(run: NewRun) -> dict[str, Any]:
    """Of a run that was recorded just now, what its row says of its deadline."""
    return {
        "deadline": run.deadline,
        "on_deadline": run.on_deadline,
        "deadline_missed": 0,
        "estimate_s": run.estimate_s,
        "started_at": None,
        "ended_at": None,
    }
