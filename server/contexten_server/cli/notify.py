"""`contexten-flow notify ...`: who is told of runs, and the messages to them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.notifications.model import DEFAULT_EVENTS, RUN_EVENTS, NotificationKind
from contexten.extensions.flow.states import DispatchState
from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, Json
from contexten_server.cli.printable import in_line
from contexten_server.cli.screen import Screen, plain_table, whole

notify = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Tell other services of runs, by signed webhooks or in Slack."
)

NotificationId = Annotated[str, typer.Argument(metavar="ID", help="A notification's id.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, max=200, help="Rows at most.")]
Page = Annotated[str | None, typer.Option(help="The next page, as the answer before named it.")]

_ACTOR = Actor(client="contexten-flow", transport="cli", tool="notify")


def _once(given: list[str] | None) -> list[str] | None:
    """What is taken once, of which the last would win in silence. Raises BadParameter."""
    if given is not None and len(given) > 1:
        raise typer.BadParameter("give it once; create a notification for each")
    return given


@notify.command()
def create(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"How it is told: {', '.join(NotificationKind)}.", show_default=False),
    ],
    url: Annotated[str | None, typer.Option(help="Of a webhook: where to post.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A secret of the settings: of a webhook with which it is signed [default: a new one], of Slack the "
            "URL of an incoming webhook.",
            show_default=False,
        ),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE", help=f"Of what it is told, repeatable: {', '.join(RUN_EVENTS)}. [default: run.failed]"
        ),
    ] = None,
    flow: Annotated[
        list[str] | None, typer.Option(metavar="FLOW_ID", callback=_once, help="Only of this flow's runs.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", callback=_once, help="Only of the runs of flows with this tag.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Tell a receiver of runs from now on. A secret that is made with it is shown this once.

    Exit codes: 0 made, 1 no flow has the id of --flow, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    asked = {
        "kind": kind,
        "url": url,
        "secret": secret,
        "events": event or DEFAULT_EVENTS,
        "flow_id": flow[0] if flow else None,
        "tag": tag[0] if tag else None,
        "name": name,
    }
    conduct(screen, partial(_create, screen, db, asked))


async def _create(screen: Screen, db: Path | None, asked: dict[str, Any]) -> Exit:
    async with asking(db) as service:
        made = await service.notifications.create(**asked, actor=_ACTOR)
    if screen.as_json:
        screen.data(made.data())
        return Exit.OK
    screen.show(f"{made.notification_id}  {in_line(made.name)}: {', '.join(made.events)}")
    if made.secret is not None:
        screen.show(f"secret  {made.secret}")
        screen.note("the secret is shown this once: give it to the receiver now", style="yellow")
    screen.note(f"`contexten-flow notify test {made.notification_id}` sends it a message")
    return Exit.OK


@notify.command("list")
def list_(limit: Limit = 50, page: Page = None, db: Db = None, as_json: Json = False) -> None:
    """List who is told of runs, newest first. Works while a server holds the database.

    Exit codes: 0 listed (or nothing to list), 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_list, screen, db, limit, page))


async def _list(screen: Screen, db: Path | None, limit: int, page: str | None) -> Exit:
    async with asking(db) as service:
        found = await service.notifications.list(limit=limit, page=page)
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("notification", "name", "to", "events", "of", "waiting", "dead", "state")
    for view in found.notifications:
        table.add_row(
            whole(view.notification_id),
            in_line(view.name),
            in_line(view.url or f"secret {view.secret_name}"),
            ", ".join(view.events),
            in_line(view.flow_id or (f"tag {view.tag}" if view.tag else "all flows")),
            str(view.pending or ""),
            str(view.dead or ""),
            "enabled" if view.enabled else f"disabled: {view.disabled}",
        )
    screen.page(table if found.notifications else "no notifications", found.next_page)
    return Exit.OK


@notify.command()
def enable(notification_id: NotificationId, db: Db = None, as_json: Json = False) -> None:
    """Let a receiver hear of runs again, also one that answered 410; what waits for it is sent now.

    Exit codes: 0 enabled, 1 no notification has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_enable, screen, notification_id, db, enabled=True))


@notify.command()
def disable(notification_id: NotificationId, db: Db = None, as_json: Json = False) -> None:
    """Stop a receiver: nothing is sent to it until it is enabled; of what happens meanwhile it is never told.

    Exit codes: 0 disabled, 1 no notification has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_enable, screen, notification_id, db, enabled=False))


async def _enable(screen: Screen, notification_id: str, db: Path | None, *, enabled: bool) -> Exit:
    async with asking(db) as service:
        view = await service.notifications.update(notification_id, enabled=enabled, actor=_ACTOR)
    screen.answer(view, f"{view.notification_id}  {'enabled' if view.enabled else 'disabled'}")
    return Exit.OK


@notify.command()
def delete(notification_id: NotificationId, db: Db = None, as_json: Json = False) -> None:
    """Tell a receiver nothing more. Messages that wait for it are deleted.

    Exit codes: 0 deleted, 1 no notification has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_delete, screen, notification_id, db))


async def _delete(screen: Screen, notification_id: str, db: Path | None) -> Exit:
    async with asking(db) as service:
        view = await service.notifications.delete(notification_id, actor=_ACTOR)
    screen.answer(view, f"{view.notification_id}  deleted")
    return Exit.OK


@notify.command("test")
def try_out(notification_id: NotificationId, db: Db = None, as_json: Json = False) -> None:
    """Send a receiver a message that says that it is a test, from this machine, once and now.

    Exit codes: 0 it was taken, 1 it was not, or no notification has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_test, screen, notification_id, db))


async def _test(screen: Screen, notification_id: str, db: Path | None) -> Exit:
    async with asking(db) as service:
        told = await service.notifications.test(notification_id, actor=_ACTOR)
    screen.answer(told, f"taken, with status {told.status}" if told.ok else f"not taken: {in_line(told.error or '')}")
    return Exit.OK if told.ok else Exit.FAILED


@notify.command()
def dispatches(
    notification_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only to this receiver.", show_default=False)
    ] = None,
    state: Annotated[DispatchState | None, typer.Option(help="Only those that stand so.", show_default=False)] = None,
    limit: Limit = 20,
    page: Page = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List messages to receivers, newest first; those that were given up with --state dead.

    Exit codes: 0 listed (or nothing to list), 1 no notification has that id, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_dispatches, screen, notification_id, db, {"state": state, "limit": limit, "page": page}))


async def _dispatches(screen: Screen, notification_id: str | None, db: Path | None, question: dict[str, Any]) -> Exit:
    async with asking(db) as service:
        found = await service.notifications.dispatches(notification_id, **question)
    if screen.as_json:
        screen.data(found.data())
        return Exit.OK
    table = plain_table("dispatch", "of", "run", "state", "tries", "next", "error")
    for view in found.dispatches:
        table.add_row(
            whole(view.dispatch_id),
            view.type,
            whole(view.run_id),
            view.state,
            str(view.attempts),
            (view.next_attempt_at or "").replace("T", " ")[:19],
            in_line(view.error or ""),
        )
    screen.page(table if found.dispatches else "no messages", found.next_page)
    return Exit.OK


@notify.command()
def retry(
    dispatch_id: Annotated[str, typer.Argument(metavar="ID", help="A dispatch's id.", show_default=False)],
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Have a message that waits or was given up sent now, with all its tries.

    Exit codes: 0 recorded, 1 no dispatch has that id or it was sent, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_retry, screen, dispatch_id, db))


async def _retry(screen: Screen, dispatch_id: str, db: Path | None) -> Exit:
    async with asking(db) as service:
        view = await service.notifications.retry(dispatch_id, actor=_ACTOR)
    screen.answer(view, f"{view.dispatch_id}  {view.state}")
    return Exit.OK
