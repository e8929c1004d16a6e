"""`contexten-flow list` and `contexten-flow status ID`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contexten.extensions.flow.states import TERMINAL_RUN_STATES
from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit, NoDatabase
from contexten_server.cli.lookup import asking, find_run, is_driven
from contexten_server.cli.options import Db, Id, Json
from contexten_server.cli.printable import in_line
from contexten_server.cli.screen import Screen, duration_text, plain_table, state_text, whole

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService

_NOTHING_MOVES = "no server runs on this database; nothing moves until one starts"

_MOST_ROWS = 200
"""Of one answer of the library."""


def list_(
    runs: Annotated[bool, typer.Option("--runs", help="List runs instead of flows.")] = False,
    status: Annotated[str | None, typer.Option(help="Only those in this state (flows without a run are idle).")] = None,
    flow: Annotated[str | None, typer.Option(metavar="FLOW_ID", help="With --runs: only this flow's runs.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only flows with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST_ROWS, help="Rows at most.")] = 20,
    page: Annotated[str | None, typer.Option(help="The next page, as the answer before named it.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List flows with their latest run, or runs; newest first. Works while a server holds the database.

    Exit codes: 0 listed (or nothing to list), 1 no flow has the id of --flow, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    question: dict[str, Any] = {"status": status, "tag": tag, "limit": limit, "page": page}
    work = partial(_list_runs, screen, db, question | {"flow_id": flow}) if runs or flow else None
    conduct(screen, work or partial(_list_flows, screen, db, question))


async def _list_flows(screen: Screen, db: Path | None, question: dict[str, Any]) -> Exit:
    try:
        async with asking(db) as service:
            found = await service.list_flows(**question)
            unsaved = "" if found.flows else await _runs_beside(service, question)
            is_stuck = _is_stuck(service, [flow.state for flow in found.flows])
    except NoDatabase as nothing:
        return _nothing(screen, nothing, "flows")
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("flow", "name", "version", "state", "runs", "latest run")
    for flow in found.flows:
        latest = flow.latest_run.run_id if flow.latest_run else ""
        table.add_row(
            whole(flow.flow_id),
            in_line(flow.name),
            str(flow.version),
            state_text(flow.state),
            str(flow.runs),
            whole(latest),
        )
    _show(screen, table if found.flows else f"no saved flows{unsaved}", found.next_page, is_stuck=is_stuck)
    return Exit.OK


async def _list_runs(screen: Screen, db: Path | None, question: dict[str, Any]) -> Exit:
    try:
        async with asking(db) as service:
            found = await service.list_runs(**question)
            is_stuck = _is_stuck(service, [run.state for run in found.runs])
    except NoDatabase as nothing:
        return _nothing(screen, nothing, "runs")
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("run", "flow", "state", "tasks", "made", "time")
    for run in found.runs:
        table.add_row(
            whole(run.run_id),
            run.flow_id,
            state_text(run.state),
            f"{run.progress.completed}/{run.progress.total}",
            (run.created_at or "").replace("T", " ")[:19],
            duration_text(run.duration_s),
        )
    _show(screen, table if found.runs else "no runs", found.next_page, is_stuck=is_stuck)
    return Exit.OK


def _nothing(screen: Screen, nothing: NoDatabase, what: str) -> Exit:
    if screen.as_json:
        screen.data({what: []})
    else:
        screen.note(f"no {what}: {nothing.message}; {nothing.next}")
    return Exit.OK


async def _runs_beside(service: FlowService, question: dict[str, Any]) -> str:
    """What to say where no flow is listed: that none matches, or that there are runs of flows that nobody saved."""
    if any(question[name] for name in ("status", "tag", "page")):
        return " match"
    found = await service.list_runs(limit=_MOST_ROWS)
    if not found.runs:
        return ""
    count = f"{len(found.runs)}{' or more' if found.next_page else ''} run{'s' if len(found.runs) > 1 else ''}"
    return f"; {count}: `contexten-flow list --runs`"


def _is_stuck(service: FlowService, states: list[str]) -> bool:
    """Whether something shown has not ended, and nothing drives it."""
    unfinished = [state for state in states if state != "idle" and state not in TERMINAL_RUN_STATES]
    return bool(unfinished) and not is_driven(service.settings.database)


def _show(screen: Screen, shown: Any, next_page: str | None, *, is_stuck: bool) -> None:
    screen.page(shown, next_page)
    if is_stuck:
        screen.note(_NOTHING_MOVES, style="yellow")


def status(
    run_id: Id,
    output: Annotated[bool, typer.Option("--output", help="Print the run's output as JSON, and nothing else.")] = False,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="With --output: this task's output instead.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show a run: its state, its tasks, why it failed. Works while a server holds the database.

    Exit codes: 0 shown, whatever the run's state; 1 nothing has that id, or no output yet; 2 wrong usage;
    3 database not usable.
    """
    screen = Screen(as_json=as_json)
    if task is not None and not output:
        raise typer.BadParameter("--task goes with --output")
    conduct(screen, partial(_status, screen, run_id, db, task=task, output=output))


async def _status(screen: Screen, given: str, db: Path | None, *, task: str | None, output: bool) -> Exit:
    async with asking(db) as service:
        run_id = await find_run(service, given)
        if output:
            text = await (service.task_output(run_id, task) if task else service.run_output(run_id))
            screen.data(json.loads(text))
            return Exit.OK
        run = await service.get_run(run_id, detail="tasks")
        is_stuck = _is_stuck(service, [run.state])
    if screen.as_json:
        screen.data(run.data())
        return Exit.OK
    from contexten_server.cli.run_table import run_group

    if is_stuck and (run.note or "").startswith("no server"):
        run = run.model_copy(update={"note": None})  # the line below says it
    screen.show(run_group(run))
    if is_stuck:
        screen.note(_NOTHING_MOVES, style="yellow")
    return Exit.OK
