"""`contexten-flow trigger ...`: what starts flows by itself, and what was delivered to it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.states import DeliveryState
from contexten.extensions.flow.triggers.model import TriggerKind
from contexten_server.cli.conduct import conduct
from contexten_server.cli.definition_file import parse_json, read_inputs, read_value
from contexten_server.cli.exits import Exit, UsageProblem
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, Json
from contexten_server.cli.printable import in_line, json_text
from contexten_server.cli.screen import Screen, plain_table, whole

if TYPE_CHECKING:
    from contexten.extensions.flow.settings import FlowSettings
    from contexten.extensions.flow.triggers.views import DeliveryView, TriggerView

TriggerViewT = TypeVar("TriggerViewT", bound="TriggerView")

trigger = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Have flows started by time, by other services, by changes of files, or by the end of other flows.",
)

TriggerId = Annotated[str, typer.Argument(metavar="ID", help="A trigger's id.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, max=200, help="Rows at most.")]
Page = Annotated[str | None, typer.Option(help="The next page, as the answer before named it.")]

_ACTOR = Actor(client="contexten-flow", transport="cli", tool="trigger")


def _kinds() -> list[str]:
    """For the shell to complete; a wrong one is told by the library, which knows the nearest."""
    return list(TriggerKind)


@trigger.command()
def create(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"What it listens to: {', '.join(TriggerKind)}.",
            autocompletion=_kinds,
            show_default=False,
        ),
    ],
    flow_id: Annotated[str, typer.Argument(metavar="FLOW_ID", help="The flow that it starts.", show_default=False)],
    config: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="What that kind is told, as a JSON object.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A part of it, such as expression='0 9 * * MON-FRI'; VALUE is JSON, or else text. Repeatable.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="The flow's inputs: templates over `event`.")
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="CEL", help="A condition over `event`; nothing starts where it is false."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    trigger_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="An id of your choice.", show_default=False)
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Make a trigger. A secret that is made with it is shown this once.

    Exit codes: 0 made, 1 no flow has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_create, screen, db, kind, flow_id, config, set_ or [], inputs, filter_, name, trigger_id))


async def _create(
    screen: Screen,
    db: Path | None,
    kind: str,
    flow_id: str,
    config: str | None,
    parts: list[str],
    inputs: str | None,
    condition: str | None,
    name: str | None,
    trigger_id: str | None,
) -> Exit:
    told = read_inputs(config, option="--config") | dict(_part(part) for part in parts)
    values = read_inputs(inputs) if inputs is not None else None
    async with asking(db) as service:
        made = await service.triggers.create(
            flow_id=flow_id,
            kind=kind,
            config=told,
            inputs=values,
            filter=condition,
            name=name,
            trigger_id=trigger_id,
            actor=_ACTOR,
        )
        made = _addressed(made, service.settings)
    if screen.as_json:
        screen.data(made.data())
        return Exit.OK
    _show(screen, made)
    if made.secret is not None:
        screen.show(f"secret    {made.secret}")
        screen.note("the secret is shown this once: give it to the sender now", style="yellow")
    for warning in made.warnings or ():
        screen.issue(warning.data(), style="yellow")
    if made.existing:
        screen.note("it was there already; nothing changed")
    return Exit.OK


def _part(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageProblem(f"--set takes NAME=VALUE, got {text!r}")
    try:
        return name, parse_json(value, what="--set")
    except UsageProblem:
        return name, value


def _addressed(view: TriggerViewT, settings: FlowSettings) -> TriggerViewT:
    """With the whole address of a hook, if the settings say under which one clients know the server."""
    if view.url is None or not settings.own_urls:
        return view
    known = urlsplit(settings.own_urls[0])
    return view.model_copy(update={"url": f"{known.scheme}://{known.netloc}{view.url}"})


@trigger.command("list")
def list_(
    flow: Annotated[str | None, typer.Option(metavar="FLOW_ID", help="Only those that start this flow.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only those of this kind.", autocompletion=_kinds, show_default=False),
    ] = None,
    limit: Limit = 50,
    page: Page = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List triggers, newest first. Works while a server holds the database.

    Exit codes: 0 listed (or nothing to list), 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_list, screen, db, {"flow_id": flow, "kind": kind, "limit": limit, "page": page}))


async def _list(screen: Screen, db: Path | None, question: dict[str, Any]) -> Exit:
    async with asking(db) as service:
        found = await service.triggers.list(**question)
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("trigger", "kind", "starts", "state", "next", "waiting", "name")
    for view in found.triggers:
        table.add_row(
            whole(view.trigger_id),
            view.kind,
            in_line(view.flow_id or view.handler or ""),
            _state(view),
            (view.next_at or "").replace("T", " ")[:19],
            str(view.waiting or ""),
            in_line(view.name),
        )
    screen.page(table if found.triggers else "no triggers", found.next_page)
    return Exit.OK


@trigger.command()
def show(trigger_id: TriggerId, db: Db = None, as_json: Json = False) -> None:
    """Show a trigger: what it is told, what it starts, when it fires next, the URL of a hook.

    Exit codes: 0 shown, 1 no trigger has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_get, screen, trigger_id, db))


async def _get(screen: Screen, trigger_id: str, db: Path | None) -> Exit:
    async with asking(db) as service:
        view = _addressed(await service.triggers.get(trigger_id), service.settings)
    if screen.as_json:
        screen.data(view.data())
    else:
        _show(screen, view)
    return Exit.OK


def _show(screen: Screen, view: TriggerView) -> None:
    lines = {
        "trigger": view.trigger_id,
        "name": in_line(view.name),
        "kind": view.kind,
        "starts": in_line(view.flow_id or f"what {view.handler} says"),
        "state": _state(view),
        "config": json_text(view.config),
        "inputs": json_text(view.inputs) if view.inputs else None,
        "filter": in_line(view.filter) if view.filter else None,
        "next": view.next_at,
        "waiting": str(view.waiting) if view.waiting else None,
        "url": view.url,
    }
    screen.show(*(f"{label:<10}{text}" for label, text in lines.items() if text is not None))
    if view.handled is False:
        screen.note(f"nothing fires or starts until a program runs that handles {in_line(view.handler or '')}")
    if view.url is not None and view.url.startswith("/"):
        screen.note("put the public address of your `contexten-flow serve --transport http` before the url")
    elif view.url is not None:
        screen.note("the sender must reach a `contexten-flow serve --transport http` on this database there")


def _state(view: TriggerView) -> str:
    if view.enabled and view.handled is False:
        return "unhandled"
    return "enabled" if view.enabled else "disabled"


@trigger.command()
def enable(trigger_id: TriggerId, db: Db = None, as_json: Json = False) -> None:
    """Let a trigger go on; what waited while it was disabled starts now.

    Exit codes: 0 enabled, 1 no trigger has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_enable, screen, trigger_id, db, enabled=True))


@trigger.command()
def disable(trigger_id: TriggerId, db: Db = None, as_json: Json = False) -> None:
    """Stop a trigger: it takes nothing and starts nothing until it is enabled.

    Exit codes: 0 disabled, 1 no trigger has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_enable, screen, trigger_id, db, enabled=False))


async def _enable(screen: Screen, trigger_id: str, db: Path | None, *, enabled: bool) -> Exit:
    async with asking(db) as service:
        view = await service.triggers.update(trigger_id, enabled=enabled, actor=_ACTOR)
    screen.answer(view, f"{view.trigger_id}  {'enabled' if view.enabled else 'disabled'}")
    return Exit.OK


@trigger.command()
def delete(trigger_id: TriggerId, db: Db = None, as_json: Json = False) -> None:
    """Delete a trigger with the record of its deliveries. Runs that it started go on.

    Exit codes: 0 deleted, 1 no trigger has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_delete, screen, trigger_id, db))


async def _delete(screen: Screen, trigger_id: str, db: Path | None) -> Exit:
    async with asking(db) as service:
        view = await service.triggers.delete(trigger_id, actor=_ACTOR)
    screen.answer(view, f"{view.trigger_id}  deleted")
    return Exit.OK


@trigger.command("test")
def try_out(
    trigger_id: TriggerId,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE", help="The event's payload, any JSON. [default: the latest]", show_default=False
        ),
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", help="The event's type, such as push.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Really deliver the event, which starts a run.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Tell what a trigger would do about an event: whether it starts a run, and with which inputs.

    Exit codes: 0 a run would start, 1 none would or no trigger has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_test, screen, trigger_id, db, payload, type_, start=start))


async def _test(
    screen: Screen, trigger_id: str, db: Path | None, payload: str | None, type_: str | None, *, start: bool
) -> Exit:
    sample = read_value(payload, option="--payload") if payload is not None else None
    async with asking(db) as service:
        told = await service.triggers.test(trigger_id, payload=sample, type=type_, start=start, actor=_ACTOR)
    code = Exit.OK if told.starts else Exit.FAILED
    if screen.as_json:
        screen.data(told.data())
        return code
    screen.show("a run would start" if told.starts else "nothing would start")
    why = told.reason or (told.error.message if told.error is not None else None)
    if why is not None:
        screen.show(f"because   {in_line(why)}")
    if told.inputs is not None:
        screen.show(f"inputs    {json_text(told.inputs)}")
    if told.delivery is not None:
        screen.show(f"delivered {told.delivery.delivery_id}")
    return code


@trigger.command()
def deliveries(
    trigger_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only of this trigger.", show_default=False)
    ] = None,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those that stand so.", show_default=False)] = None,
    limit: Limit = 20,
    page: Page = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List what was delivered, newest first: the run that it started, or why nothing started.

    Exit codes: 0 listed (or nothing to list), 1 no trigger has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    question = {"state": state, "limit": limit, "page": page}
    conduct(screen, partial(_deliveries, screen, trigger_id, db, question))


async def _deliveries(screen: Screen, trigger_id: str | None, db: Path | None, question: dict[str, Any]) -> Exit:
    async with asking(db) as service:
        found = await service.triggers.deliveries(trigger_id, **question)
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("delivery", "trigger", "type", "received", "state", "run, or why none")
    for view in found.deliveries:
        table.add_row(
            whole(view.delivery_id),
            view.trigger_id,
            in_line(view.type),
            view.received_at.replace("T", " ")[:19],
            view.state,
            _outcome(view),
        )
    screen.page(table if found.deliveries else "no deliveries", found.next_page)
    return Exit.OK


def _outcome(view: DeliveryView) -> str:
    return in_line(view.run_id or view.reason or (view.error.message if view.error is not None else ""))


@trigger.command()
def redeliver(
    delivery_id: Annotated[str, typer.Argument(metavar="ID", help="A delivery's id.", show_default=False)],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Do again what a delivery does, by its trigger as it is now.

    Exit codes: 0 recorded, 1 no delivery has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_redeliver, screen, delivery_id, db))


async def _redeliver(screen: Screen, delivery_id: str, db: Path | None) -> Exit:
    async with asking(db) as service:
        view = await service.triggers.redeliver(delivery_id, actor=_ACTOR)
    screen.answer(view, f"{view.delivery_id}  {view.state}")
    return Exit.OK
