"""One run, as it stands and as it changes: details, waiting, outputs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Literal

import anyio

from ..answers.paging import MAX_PAGE
from ..answers.reading import Answers
from ..answers.rendering import with_holds
from ..definition import Plan
from ..engines import AGENT, NATIVE
from ..errors import IllegalMove, TaskNotFound
from ..flows.plans import Plans
from ..flows.planview import graph_view
from ..live.watching import Watchers
from ..scheduling.forecast import Forecast
from ..states import RunState
from ..views import Detail, RunView, TaskView

PROGRESS_S = 0.2  # between reports of progress to one caller


class RunReader:
    """Reads the runs of one database, and waits for them."""

    def __init__(
        self,
        answers: Answers,
        *,
        plans: Plans,
        forecast: Forecast,
        watchers: Watchers,
        holds: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`holds` answers what keeps tasks of a run from starting, where this process drives it."""
        self._answers = answers
        self._plans = plans
        self._forecast = forecast
        self._watchers = watchers
        self._holds = holds

    async def get(
        self,
        run_id: str,
        *,
        detail: Detail = "summary",
        since: str | None = None,
        task: str | None = None,
        limit: int = MAX_PAGE,
    ) -> RunView:
        """Raises RunNotFound, TaskNotFound. `since` keeps only tasks and events that changed after that cursor; `task`
        keeps that one alone: its summary is its entry among the tasks, its definition the task's own."""
        if task is not None and detail == "summary":
            detail = "tasks"
        after, reset = await self._answers.place(since, run_id)
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        if task is not None and task not in plan.tasks:
            raise TaskNotFound(
                f"The run {run_id} has no task {task!r}; it has {', '.join(list(plan.tasks)[:20])}.",
                next=f"Call get_flow_status(run_id={run_id!r}, detail='tasks').",
            )
        more: dict[str, Any] = {"reset": True if reset else None}
        tasks: list[TaskView] = []
        if row["framework"] != NATIVE or any(node.task.type == AGENT for node in plan.tasks.values()):
            more["usage"] = await self._answers.usage(run_id)
        if row["state"] == RunState.PAUSED:
            more["root_run_id"] = await self._answers.root_run_id(row)
        if row["framework"].startswith("prefect"):
            more["monitor_url"] = await self._answers.monitor_url(run_id)
        if row["blocked"] is not None:
            more["dependencies"] = await self._answers.dependencies(run_id)
        of_tasks = detail in ("tasks", "graph")
        if of_tasks or not RunState(row["state"]).is_terminal:
            tasks, active = await self._answers.tasks(run_id, plan, after if of_tasks else 0)
            more["active"] = active or None
            tasks = with_holds(tasks, self._holds(run_id), plan)
        if of_tasks:
            more["tasks"] = [view for view in tasks if task is None or view.name == task]
        if detail == "graph" and not after:
            more["graph"] = [part for part in graph_view(plan) if task is None or part.task == task]
        elif detail == "events":
            events = await self._answers.events(run_id, after, limit + 1)
            row = await self._answers.row(run_id)  # as in `_changed`
            more["more_events"] = True if len(events) > limit else None
            more["events"] = [event for event in events[:limit] if task is None or event.task == task]
            more["cursor"] = events[:limit][-1].cursor if events else self._answers.cursor(after)
        elif detail == "output":
            more["output"] = await self._output(row, run_id, task, plan)
        elif detail == "definition":
            more["definition"] = (plan.definition if task is None else plan.tasks[task].task).as_dict()
            more["inputs"] = json.loads(row["inputs"])
        is_dated = row["state"] == RunState.SCHEDULED and row["deadline"] is not None
        start = await self._forecast.expected_start(run_id) if is_dated else None
        view = self._answers.run_view(row, start=start)
        return view.model_copy(update={key: value for key, value in more.items() if value is not None})

    async def _output(self, row: sqlite3.Row, run_id: str, task: str | None, plan: Plan) -> Any:
        if task is not None:
            return json.loads(await self._answers.output(run_id, task, plan))
        return json.loads(row["whole_output"]) if row["whole_output"] is not None else None

    async def wait(
        self,
        run_id: str,
        *,
        timeout_s: float | None = None,
        until: Literal["end", "change"] = "end",
        since: str | None = None,
        on_progress: Callable[[RunView], Awaitable[None]] | None = None,
    ) -> RunView:
        """Wait for the run's end (or for any change after `since`), at most `timeout_s`; then what changed, as
        `events`.
        The end of waiting is never the end of the run. `on_progress` is called after changes, at most 5 times a second.

        Raises RunNotFound, InvalidArguments.
        """
        after, reset = await self._answers.place(since, run_id)
        row = await self._answers.row(run_id)
        if since is None or reset:
            after = int(row["cursor"])
        waited = partial(self._is_waited_for, until=until, after=-1 if reset else after)  # a snapshot is news at once
        known = int(row["cursor"])  # what the caller knows, or has been told
        end_only = until == "end" and on_progress is None
        with self._watchers.watch(run_id, end_only=end_only) as watch, anyio.move_on_after(timeout_s):
            row = await self._answers.row(run_id)  # after the watch began: no change is missed between
            while not waited(row):
                if not self._watchers.are_closed and (on_progress is None or int(row["cursor"]) == known):
                    await watch.wait()
                if self._watchers.are_closed:
                    break
                row = await self._answers.row(run_id)
                if on_progress is not None and int(row["cursor"]) != known:
                    known = int(row["cursor"])
                    await on_progress(self._answers.run_view(row))
                    if not waited(row):
                        await anyio.sleep(PROGRESS_S)
        return await self._changed(run_id, after, reset=reset)

    @staticmethod
    def _is_waited_for(row: sqlite3.Row, until: str, after: int) -> bool:
        state = RunState(row["state"])
        if state.is_terminal or (until == "end" and state is RunState.PAUSED):  # then a person is needed
            return True
        return until == "change" and int(row["cursor"]) > after

    async def _changed(self, run_id: str, after: int, *, reset: bool) -> RunView:
        events = await self._answers.events(run_id, after, MAX_PAGE + 1)
        view = await self.get(run_id)  # after the events: a state may be ahead of the cursor, never behind it
        update: dict[str, Any] = {"events": events[:MAX_PAGE], "reset": True if reset else None}
        if len(events) > MAX_PAGE:
            update["more_events"] = True
        update["cursor"] = events[:MAX_PAGE][-1].cursor if events else self._answers.cursor(after)
        return view.model_copy(update=update)

    async def task_output(self, run_id: str, task: str) -> str:
        """A completed task's output as JSON text, whole. Raises RunNotFound, TaskNotFound, IllegalMove (no output
        yet)."""
        row = await self._answers.row(run_id)
        plan, _ = await self._plans.plan_of(row["flow_id"], row["version"])
        return await self._answers.output(run_id, task, plan)

    async def run_output(self, run_id: str) -> str:
        """A completed run's output as JSON text, whole. Raises RunNotFound, IllegalMove (no output yet)."""
        row = await self._answers.row(run_id)
        if row["whole_output"] is None:
            raise IllegalMove(
                f"The run {run_id} is {row['state']} and has no output.",
                next=f"Call wait_for_flow(run_id={run_id!r}) or explain_flow(run_id={run_id!r}).",
            )
        return str(row["whole_output"])
