"""`contexten-flow run FILE`: execute a definition in this process, with live progress."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contexten_server.cli.conduct import conduct, load_settings
from contexten_server.cli.definition_file import read_definition, read_inputs
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, DefinitionFile, Json
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.views import RunView


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

    Ctrl-C stops this process, not the run: what is recorded stays, and the run goes on when a server or another
    `run` next opens the database. `contexten-flow cancel ID` ends it for good.

    Exit codes: 0 completed, 1 failed or cancelled or refused, 2 wrong usage, 3 database not usable, 130 Ctrl-C.
    """
    screen = Screen(as_json=as_json)
    request = {"priority": priority, "timeout_s": timeout, "idempotency_key": idempotency_key}
    conduct(screen, partial(_run, screen, file, inputs, db, request))


async def _run(screen: Screen, file: str, inputs: str | None, db: Any, request: dict[str, Any]) -> Exit:
    from contexten.extensions.flow.service import Actor, FlowService

    definition = read_definition(file)
    values = read_inputs(inputs)
    settings = load_settings(db)
    actor = Actor(client="contexten-flow", transport="cli", tool="run")
    async with FlowService(settings, holder="contexten-flow run") as service:
        started = await service.execute_flow(workflow_def=definition, inputs=values, actor=actor, **request)
        try:
            ended = await _follow(screen, service, started)
        except BaseException:
            screen.note(
                f"stopped; run {started.run_id} is recorded and goes on when a server or another `contexten-flow run` "
                f"opens this database; `contexten-flow cancel {started.run_id}` ends it",
                style="yellow",
            )
            raise
        output = await service.run_output(started.run_id) if ended.state == "completed" else None
    _conclude(screen, ended, output)
    return Exit.OK if ended.state == "completed" else Exit.FAILED


async def _follow(screen: Screen, service: FlowService, started: RunView) -> RunView:
    """Show a run until it ends; answers it with its tasks."""
    live, show = _progress(screen, service, started)
    with live:
        await service.wait(started.run_id, on_progress=show)
        ended = await service.get_run(started.run_id, detail="tasks")
        await show(ended)
    return ended


def _progress(
    screen: Screen, service: FlowService, started: RunView
) -> tuple[AbstractContextManager[object], Callable[[RunView], Awaitable[None]]]:
    if screen.as_json:

        async def silent(_run: RunView) -> None:
            return

        return nullcontext(), silent
    if sys.stdout.isatty():
        return _live_table(screen, service, started)
    return nullcontext(), _plain_lines(screen, service, started)


def _live_table(
    screen: Screen, service: FlowService, started: RunView
) -> tuple[AbstractContextManager[object], Callable[[RunView], Awaitable[None]]]:
    from rich.live import Live

    from contexten_server.cli.run_table import MOST_ROWS, run_group

    live = Live(run_group(started), console=screen.out, refresh_per_second=10)

    async def redraw(_run: RunView) -> None:
        live.update(run_group(await service.get_run(started.run_id, detail="tasks"), most=MOST_ROWS))

    return live, redraw


def _plain_lines(screen: Screen, service: FlowService, started: RunView) -> Callable[[RunView], Awaitable[None]]:
    from contexten_server.cli.run_table import event_text

    seen: str | None = None

    async def print_new(_run: RunView) -> None:
        nonlocal seen
        while events := await service.events(started.run_id, since=seen):
            seen = events[-1].cursor
            for event in events:
                screen.show(event_text(event))

    return print_new


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
