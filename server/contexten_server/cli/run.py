"""`contexten-flow run FILE`: execute a definition in this process, with live progress."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contexten.extensions.flow.states import TERMINAL_RUN_STATES
from contexten_server.cli.conduct import conduct, load_settings
from contexten_server.cli.definition_file import read_definition, read_inputs
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, DefinitionFile, Json
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.views import RunView

REDRAW_S = 0.1
"""The shortest time between two pictures of a run: an eye sees no more."""


def run(
    file: DefinitionFile,
    inputs: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="The run's inputs as a JSON object.")] = None,
    priority: Annotated[str | None, typer.Option(help="critical, high, normal, low, background, or a number.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Fail the run after this time.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The same key with the same request answers the same run.")
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Run a definition here and now, showing its progress.

    Ctrl-C stops this process, not the run: what is recorded stays, and the run goes on in another server of the
    database, or when a server or another `run` next opens it. `contexten-flow cancel ID` ends it for good.

    Exit codes: 0 completed, 1 failed or cancelled or refused, 2 wrong usage, 3 database not usable, 130 Ctrl-C.
    """
    screen = Screen(as_json=as_json)
    request = {"priority": priority, "timeout_s": timeout, "idempotency_key": idempotency_key}
    conduct(screen, partial(_run, screen, file, inputs, db, request))


async def _run(screen: Screen, file: str, inputs: str | None, db: Any, request: dict[str, Any]) -> Exit:
    from contexten.extensions.flow.actor import Actor
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.telemetry.exporting import exporting

    definition = read_definition(file)
    values = read_inputs(inputs)
    settings = load_settings(db)
    actor = Actor(client="contexten-flow", transport="cli", tool="run")
    async with exporting(), FlowService(settings, holder="contexten-flow run") as service:
        started = await service.execute_flow(workflow_def=definition, inputs=values, actor=actor, **request)
        try:
            ended = await _follow(screen, service, started)
        except BaseException:
            screen.note(
                f"stopped; run {started.run_id} is recorded and goes on in another server, or when one or another "
                f"`contexten-flow run` opens this database; `contexten-flow cancel {started.run_id}` ends it",
                style="yellow",
            )
            raise
        output = await service.run_output(started.run_id) if ended.state == "completed" else None
    _conclude(screen, ended, output)
    return Exit.OK if ended.state == "completed" else Exit.FAILED


async def _follow(screen: Screen, service: FlowService, started: RunView) -> RunView:
    """Show a run until it ends; answers it with its tasks."""
    if screen.as_json:
        await service.wait(started.run_id)
    elif sys.stdout.isatty():
        await _show_table(screen, service, started)
    else:
        await _print_lines(screen, service, started)
    return await service.get_run(started.run_id, detail="tasks")


async def _show_table(screen: Screen, service: FlowService, run: RunView) -> None:
    from rich.live import Live

    from contexten.extensions.flow.clock import SystemClock
    from contexten_server.cli.run_table import MOST_ROWS, run_group

    clock = SystemClock()
    with Live(run_group(run), console=screen.out, refresh_per_second=10) as live:
        while run.state not in TERMINAL_RUN_STATES:
            changed = await service.wait(run.run_id, until="change", since=run.cursor)
            run = await service.get_run(run.run_id, detail="tasks")
            live.update(run_group(run, most=None if run.state in TERMINAL_RUN_STATES else MOST_ROWS))
            run = run.model_copy(update={"cursor": changed.cursor})
            await clock.sleep(REDRAW_S)


async def _print_lines(screen: Screen, service: FlowService, run: RunView) -> None:
    from contexten_server.cli.run_table import event_text

    for event in await service.events(run.run_id):
        screen.show(event_text(event))
        run = run.model_copy(update={"cursor": event.cursor})
    while run.state not in TERMINAL_RUN_STATES or run.more_events:
        run = await service.wait(run.run_id, until="change", since=run.cursor)
        for event in run.events or []:
            screen.show(event_text(event))


def _conclude(screen: Screen, ended: RunView, output: str | None) -> None:
    import json

    if screen.as_json:
        screen.data(ended.data() | ({"output": json.loads(output)} if output is not None else {}))
        return
    from rich.json import JSON

    from contexten_server.cli.run_table import run_group, run_heading

    screen.show(run_heading(ended) if sys.stdout.isatty() else run_group(ended))
    if output is not None:
        screen.show(JSON(output, ensure_ascii=False))
