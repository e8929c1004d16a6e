"""`contexten-flow list` and `contexten-flow status ID`."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit, NoDatabase
from contexten_server.cli.lookup import asking, find_run
from contexten_server.cli.options import Db, Id, Json
from contexten_server.cli.screen import Screen, duration_text, plain_table, state_text, whole


def list_(
    runs: Annotated[bool, typer.Option("--runs", help="List runs instead of flows.")] = False,
    status: Annotated[str | None, typer.Option(help="Only those in this state (flows without a run are idle).")] = None,
    flow: Annotated[str | None, typer.Option(metavar="FLOW_ID", help="With --runs: only this flow's runs.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only flows with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows at most.")] = 20,
    page: Annotated[str | None, typer.Option(help="The next page, as the answer before named it.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List flows with their latest run, or runs; newest first. Works while a server holds the database.

    Exit codes: 0 listed (or nothing to list), 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    question: dict[str, Any] = {"status": status, "tag": tag, "limit": limit, "page": page}
    work = partial(_list_runs, screen, db, question | {"flow_id": flow}) if runs or flow else None
    conduct(screen, work or partial(_list_flows, screen, db, question))


async def _list_flows(screen: Screen, db: Path | None, question: dict[str, Any]) -> Exit:
    try:
        async with asking(db) as service:
            found = await service.list_flows(**question)
    except NoDatabase as nothing:
        return _nothing(screen, nothing, "flows")
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("flow", "name", "version", "state", "runs", "latest run")
    for flow in found.flows:
        latest = flow.latest_run.run_id if flow.latest_run else ""
        table.add_row(
            whole(flow.flow_id), flow.name, str(flow.version), state_text(flow.state), str(flow.runs), whole(latest)
        )
    _show(screen, table, rows=len(found.flows), next_page=found.next_page, what="flows")
    return Exit.OK


async def _list_runs(screen: Screen, db: Path | None, question: dict[str, Any]) -> Exit:
    try:
        async with asking(db) as service:
            found = await service.list_runs(**question)
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
    _show(screen, table, rows=len(found.runs), next_page=found.next_page, what="runs")
    return Exit.OK


def _nothing(screen: Screen, nothing: NoDatabase, what: str) -> Exit:
    if screen.as_json:
        screen.data({what: []})
    else:
        screen.note(f"no {what}: {nothing.message}; {nothing.next}")
    return Exit.OK


def _show(screen: Screen, table: Any, *, rows: int, next_page: str | None, what: str) -> None:
    if rows:
        screen.show(table)
    else:
        screen.note(f"no {what}")
    if next_page:
        screen.note(f"more: --page {next_page}")


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
            sys.stdout.write(json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n")
            return Exit.OK
        run = await service.get_run(run_id, detail="tasks")
    if screen.as_json:
        screen.data(run.data())
        return Exit.OK
    from contexten_server.cli.run_table import run_group

    screen.show(run_group(run))
    return Exit.OK
