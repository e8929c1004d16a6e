"""`contexten-flow save FILE`: a definition becomes a flow that can be run, triggered and listed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contexten.extensions.flow.errors import FlowExists
from contexten_server.cli.conduct import conduct, load_settings
from contexten_server.cli.definition_file import read_definition
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, DefinitionFile, Json
from contexten_server.cli.printable import in_line
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.views import FlowSaved


def save(
    file: DefinitionFile,
    flow_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The flow's id. [default: the definition's, else a new one]"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name. [default: the definition's]", show_default=False)] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Save a definition as a flow, without running it; with the id of one that is there, as its next version.

    The id that is printed is what `contexten-flow trigger create` and agents start it by.

    Exit codes: 0 saved, 1 the definition has problems, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_save, screen, file, flow_id, name, db))


async def _save(screen: Screen, file: str, flow_id: str | None, name: str | None, db: Path | None) -> Exit:
    from contexten.extensions.flow.service import FlowService

    definition = read_definition(file)
    async with FlowService(load_settings(db), drive=False, holder="contexten-flow save") as service:
        saved = await _saved(service, definition, flow_id, name)
    if screen.as_json:
        screen.data(saved.model_copy(update={"next": None}).data())  # it names the call of an agent
        return Exit.OK
    for warning in saved.warnings:
        screen.issue(warning.data(), style="yellow")
    screen.show(f"{saved.flow_id}  version {saved.version}  {in_line(saved.name)}")
    if saved.existing:
        screen.note("it was saved before; nothing changed")
    return Exit.OK


async def _saved(service: FlowService, definition: Any, flow_id: str | None, name: str | None) -> FlowSaved:
    from contexten.extensions.flow.actor import Actor

    actor = Actor(client="contexten-flow", transport="cli", tool="save")
    try:
        return await service.create_flow(workflow_def=definition, flow_id=flow_id, name=name, actor=actor)
    except FlowExists:
        the_id = flow_id or definition.get("id")
        if the_id is None:  # the id that was made for it is another flow's
            raise
        changed = definition if name is None else {**definition, "name": name}
        return await service.update_flow(the_id, workflow_def=changed, actor=actor)
