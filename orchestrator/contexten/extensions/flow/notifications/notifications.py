"""Telling others of runs: who is told of what, and the messages that wait, were sent or were given up."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from ..actor import PYTHON, Actor
from ..agents.secrets import SecretVault
from ..answers.paging import check_list, list_name, place_of_page
from ..answers.reading import Answers
from ..clock import Clock, iso, make_id
from ..errors import AttemptError, DispatchNotFound, IllegalMove, Issue, NotificationNotFound
from ..live.consumer import JournalConsumer
from ..live.watching import Watchers
from ..nearest import checked_choice, nearest_name
from ..outside.addresses import HostAllowance
from ..settings import FlowSettings
from ..states import DispatchState
from ..store import Store
from ..store.cursors import encode
from ..store.notifications import (
    CONSUMER,
    NewNotification,
    delete_dispatches,
    delete_notification,
    disable_notification,
    enable_notification,
    insert_notification,
    queue_dispatches,
    record_test,
    revive_dispatch,
)
from ..store.sql import SQL
from ..store.writer import Refused
from ..views import RunView
from .checking import check_new, wrong
from .messages import slack_text, webhook_body
from .model import DEFAULT_EVENTS, RUN_EVENTS, NotificationKind
from .post import Post
from .receiver import new_signing_secret, receiver_of
from .sender import Sender
from .views import (
    DispatchPage,
    DispatchView,
    NotificationCreated,
    NotificationPage,
    NotificationTest,
    NotificationView,
)

_ON_REQUEST = "on request"
"""Why a receiver is disabled that did not ask for it."""

_TEST = "This is a test message of Contexten Flow. Nothing has happened."


class Notifications:
    """The receivers of a database and the messages to them. Used on the event loop only."""

    def __init__(
        self,
        *,
        store: Store,
        answers: Answers,
        vault: SecretVault,
        settings: FlowSettings,
        clock: Clock,
        watchers: Watchers,
        describe: Callable[[str], Awaitable[RunView]],
        output_of: Callable[[str], Awaitable[str]],
    ) -> None:
        """`describe` answers a run in brief, `output_of` its output as JSON text."""
        self._store = store
        self._answers = answers
        self._vault = vault
        self._allowance = HostAllowance(settings.allow_hosts)
        self._clock = clock
        self._post = Post(settings, vault, clock)
        self._sender = Sender(
            store=store,
            vault=vault,
            clock=clock,
            watchers=watchers,
            post=self._post,
            describe=describe,
            output_of=output_of,
        )
        self._consumer = JournalConsumer(
            CONSUMER,
            store,
            watchers,
            clock,
            types=frozenset(RUN_EVENTS),
            take=queue_dispatches,
            entries="entries_to_tell",
        )

    # Its life
    def start(self, group: asyncio.TaskGroup) -> Sequence[asyncio.Task[None]]:
        """Make messages of what happens, and send them, in tasks of the group, until they are cancelled."""
        return (
            group.create_task(self._consumer.run(), name="notifications"),
            group.create_task(self._sender.run(), name="dispatches"),
        )

    async def aclose(self) -> None:
        """Close the connections to receivers."""
        await self._post.aclose()

    # Receivers
    async def create(
        self,
        *,
        kind: str,
        url: str | None = None,
        secret: str | None = None,
        events: Sequence[str] = DEFAULT_EVENTS,
        flow_id: str | None = None,
        tag: str | None = None,
        name: str | None = None,
        actor: Actor = PYTHON,
    ) -> NotificationCreated:
        """Tell a receiver of events of runs from now on: all runs', a flow's, or those of flows with a tag.

        `secret` names a secret of the settings: a webhook's messages are signed with it, or with a generated one; of a
        Slack notification it is the URL of the incoming webhook. Raises InvalidArguments, FlowNotFound.
        """
        check_new(kind, url=url, secret=secret, events=events, name=name, allowance=self._allowance)
        generated = new_signing_secret() if secret is None else None
        try:
            receiver = receiver_of(self._vault, kind, url, secret, generated)
        except AttemptError as error:
            raise wrong(Issue(path="/secret", code="invalid_secret", message=error.message, got=secret)) from None
        if flow_id is not None:
            await self._answers.latest_run_id(flow_id)  # whether it is there
        at = self._clock.timestamp()
        new = NewNotification(
            notification_id=make_id("ntf_", at),
            name=name or f"{kind} to {urlsplit(receiver.url).hostname}",
            kind=kind,
            url=url,
            secret_name=secret,
            secret=generated,
            events=tuple(dict.fromkeys(events)),
            flow_id=flow_id,
            tag=tag,
        )
        await self._store.write(partial(insert_notification, new=new, at=at, actor=str(actor)))
        view = await self.get(new.notification_id)
        return NotificationCreated(**view.model_dump(), secret=generated)

    async def list(self, *, limit: int = 50, page: str | None = None) -> NotificationPage:
        """Newest first. Raises InvalidArguments."""
        check_list(None, (), limit)
        name = list_name(self._store.identity, "notifications")
        rows = await self._store.rows(SQL["list_notifications"], (place_of_page(name, page), limit + 1))
        return NotificationPage(
            notifications=list(await self._views(rows[:limit])),
            next_page=encode(name, rows[limit - 1]["seq"]) if len(rows) > limit else None,
        )

    async def get(self, notification_id: str) -> NotificationView:
        """Raises NotificationNotFound."""
        row = await self._row(notification_id)
        return (await self._views([row]))[0]

    async def update(self, notification_id: str, *, enabled: bool, actor: Actor = PYTHON) -> NotificationView:
        """Send nothing to a receiver until it is enabled again, or enable it, also one that answered 410. What waits
        for it goes on then; of what happens meanwhile it is never told. Raises NotificationNotFound."""
        await self._row(notification_id)
        change = enable_notification if enabled else partial(disable_notification, why=_ON_REQUEST)
        at = self._clock.timestamp()
        await self._store.write(partial(change, notification_id=notification_id, at=at, actor=str(actor)))
        return await self.get(notification_id)

    async def delete(self, notification_id: str, *, actor: Actor = PYTHON) -> NotificationView:
        """Tell a receiver nothing more; its messages go first, in batches, then what is left with it. Answers what it
        was. Raises NotificationNotFound."""
        view = await self.get(notification_id)
        while await self._store.write(partial(delete_dispatches, notification_id=notification_id)):
            pass
        at = self._clock.timestamp()
        if not await self._store.write(
            partial(delete_notification, notification_id=notification_id, at=at, actor=str(actor))
        ):
            raise await self._not_found(notification_id)
        return view

    async def test(self, notification_id: str, *, actor: Actor = PYTHON) -> NotificationTest:
        """Send a receiver a message that says that it is a test, once, also one that is disabled, and tell what it
        answered. The journal says before it who asked. Raises NotificationNotFound."""
        row = await self._row(notification_id)
        at = self._clock.timestamp()
        await self._store.write(partial(record_test, notification_id=notification_id, at=at, actor=str(actor)))
        if row["kind"] == NotificationKind.SLACK:
            body = json.dumps(slack_text(_TEST))
        else:
            body = webhook_body("test", iso(at) or "", {"notification_id": notification_id, "message": _TEST})
        try:
            receiver = receiver_of(self._vault, row["kind"], row["url"], row["secret_name"], row["secret"])
        except AttemptError as error:
            return NotificationTest(notification_id=notification_id, ok=False, error=error.message)
        answer = await self._sender.try_once(receiver, make_id("dsp_", at), body)
        return NotificationTest(
            notification_id=notification_id, ok=answer.error is None, status=answer.status, error=answer.error
        )

    # Messages
    async def dispatches(
        self,
        notification_id: str | None = None,
        *,
        state: str | None = None,
        limit: int = 20,
        page: str | None = None,
    ) -> DispatchPage:
        """Messages, newest first; `state="dead"` are those that were given up. Raises InvalidArguments,
        NotificationNotFound."""
        if state is not None:
            checked_choice("state", state, tuple(DispatchState))
        check_list(None, (), limit)
        if notification_id is not None:
            await self._row(notification_id)
        name = list_name(self._store.identity, "dispatches", notification_id, state)
        query = "list_dispatches" if state in (None, DispatchState.SENT) else "list_unsent_dispatches"
        rows = await self._store.rows(
            SQL[query if notification_id is None else f"{query}_of"],
            {
                "before": place_of_page(name, page),
                "notification_id": notification_id,
                "state": state,
                "limit": limit + 1,
            },
        )
        return DispatchPage(
            dispatches=[_dispatch_view(row) for row in rows[:limit]],
            next_page=encode(name, rows[limit - 1]["seq"]) if len(rows) > limit else None,
        )

    async def retry(self, dispatch_id: str, *, actor: Actor = PYTHON) -> DispatchView:
        """Send a message that waits or was given up now, with all its tries; a receiver that was disabled is enabled.
        Raises DispatchNotFound, IllegalMove."""
        view = await self._dispatch(dispatch_id)
        change = partial(
            revive_dispatch,
            dispatch_id=dispatch_id,
            notification_id=view.notification_id,
            at=self._clock.timestamp(),
            actor=str(actor),
        )
        try:
            await self._store.write(change)
        except Refused:
            state = (await self._dispatch(dispatch_id)).state
            raise IllegalMove(
                f"The dispatch {dispatch_id} {'was' if state == DispatchState.SENT else 'is being'} sent.",
                next="Retry one that is pending or dead: list_dispatches(state='dead') lists those that were given up.",
                issues=[Issue(path="/dispatch_id", code="not_waiting", message="neither pending nor dead", got=state)],
            ) from None
        return await self._dispatch(dispatch_id)

    # Rows
    async def _row(self, notification_id: str) -> sqlite3.Row:
        row = await self._store.row(SQL["read_notification"], (notification_id,))
        if row is None:
            raise await self._not_found(notification_id)
        return row

    async def _not_found(self, notification_id: str) -> NotificationNotFound:
        near = nearest_name(notification_id, [str(row[0]) for row in await self._store.rows(SQL["notification_ids"])])
        hint = f" Did you mean {near!r}?" if near else ""
        return NotificationNotFound(
            f"There is no notification {notification_id[:200]!r}.{hint}", next="Call list_notifications() to see them."
        )

    async def _views(self, rows: Sequence[sqlite3.Row]) -> Sequence[NotificationView]:
        ids = json.dumps([row["notification_id"] for row in rows])
        counts = {row[0]: (row[1], row[2]) for row in await self._store.rows(SQL["count_dispatches"], (ids,))}
        return [_notification_view(row, *counts.get(row["notification_id"], (0, 0))) for row in rows]

    async def _dispatch(self, dispatch_id: str) -> DispatchView:
        row = await self._store.row(SQL["read_dispatch"], (dispatch_id,))
        if row is None:
            near = nearest_name(dispatch_id, [str(row[0]) for row in await self._store.rows(SQL["dispatch_ids"])])
            hint = f" Did you mean {near!r}?" if near else ""
            raise DispatchNotFound(
                f"There is no dispatch {dispatch_id[:200]!r}.{hint}", next="Call list_dispatches() to see them."
            )
        return _dispatch_view(row)


def _notification_view(row: sqlite3.Row, pending: int, dead: int) -> NotificationView:
    url: str | None = row["url"]
    parts = None if url is None else urlsplit(url)
    if parts is not None and (parts.query or parts.fragment):
        url = f"{parts._replace(query='', fragment='').geturl()}?…"
    return NotificationView(
        notification_id=row["notification_id"],
        name=row["name"],
        kind=row["kind"],
        url=url,
        secret_name=row["secret_name"],
        events=json.loads(row["events"]),
        flow_id=row["flow_id"],
        tag=row["tag"],
        enabled=row["disabled"] is None,
        disabled=row["disabled"],
        pending=pending,
        dead=dead,
        created_at=iso(row["created_at"]) or "",
    )


def _dispatch_view(row: sqlite3.Row) -> DispatchView:
    return DispatchView(
        dispatch_id=row["dispatch_id"],
        notification_id=row["notification_id"],
        kind=row["kind"],
        type=row["type"],
        run_id=row["run_id"],
        flow_id=row["flow_id"],
        state=row["state"],
        attempts=row["attempts"],
        next_attempt_at=iso(row["due_at"]) if row["state"] == DispatchState.PENDING else None,
        status=row["status"],
        error=row["error"],
        happened_at=iso(row["at"]) or "",
        ended_at=iso(row["ended_at"]),
    )
