"""Sending messages: each at least once, however servers die and receivers behave.

A message is claimed for one try, so that of several servers one sends it, and what became of the try is recorded after
it. A server that dies between leaves the claim, which ends by itself; then the message is sent once more, under the
same id, by which receivers know it. A receiver gets one message at a time: a slow one holds up its own only.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..agents.secrets import SecretVault
from ..clock import Clock, iso
from ..errors import AttemptError, FlowError, IllegalMove, NotFound
from ..live.bell import Bell
from ..live.turns import take_turns
from ..live.watching import Change, Watchers
from ..recovery.retry import RetryPolicy
from ..store import Store
from ..store.notifications import (
    ENABLED,
    QUEUED,
    ClaimedDispatch,
    claim_dispatches,
    end_sending,
    give_receiver_up,
    give_sending_up,
    put_sending_off,
)
from ..store.sql import SQL
from ..views import RunView
from .messages import slack_body, slack_text, webhook_body
from .model import NotificationKind
from .post import GONE, TIMEOUT_S, Answer, Post
from .receiver import Receiver, receiver_of

logger = logging.getLogger(__name__)

MAX_SENDING = 20  # messages that a server sends at once
CLAIM_S = TIMEOUT_S + 20.0  # then another server may try: a try, and what recording it may take
LOOK_AGAIN_S = 60.0  # a machine that slept, or whose clock was set, sends at most this late

POLICY = RetryPolicy(max_attempts=8, delay_s=30.0, backoff=4.0, max_delay_s=12 * 3600.0)
"""Over about a day: after 30 s, 2 min, 8 min, 32 min, 2 h, 8.5 h and 12 h."""

REPLY_POLICY = RetryPolicy(max_attempts=5, delay_s=5.0, backoff=3.0)
"""Slack takes answers to a command for 30 minutes."""

_REPLIES = "https://hooks.slack.com/"


class Sender:
    """Sends what is due. Used on the event loop only."""

    def __init__(
        self,
        *,
        store: Store,
        vault: SecretVault,
        clock: Clock,
        watchers: Watchers,
        post: Post,
        describe: Callable[[str], Awaitable[RunView]],
        output_of: Callable[[str], Awaitable[str]],
    ) -> None:
        """`describe` answers a run in brief, `output_of` its output as JSON text."""
        self._store = store
        self._vault = vault
        self._clock = clock
        self._watchers = watchers
        self._post = post
        self._describe = describe
        self._output_of = output_of
        self._news = Bell(clock)
        self._sending = 0

    async def run(self) -> None:
        """Send until cancelled. A message that is being sent then is sent again when its claim has ended."""
        async with asyncio.TaskGroup() as group:
            await take_turns(
                partial(self._send_due, group),
                bell=self._news,
                watchers=self._watchers,
                heard=self._heard,
                failure="messages could not be taken",
            )

    def _heard(self, change: Change) -> None:
        if not {QUEUED, ENABLED}.isdisjoint(change.types):
            self._news.ring()

    async def _send_due(self, group: asyncio.TaskGroup) -> float | None:
        """Start sending what is due, as many as there are places; answers after how many seconds to look again, None
        where nothing waits: what is queued rings."""
        free = MAX_SENDING - self._sending
        if free <= 0:
            return LOOK_AGAIN_S  # each that ends wakes
        row = await self._store.row(SQL["next_dispatch"])
        if row is None or row[0] is None:
            return None
        at = self._clock.timestamp()
        if row[0] > at:
            return min(float(row[0]) - at, LOOK_AGAIN_S)
        claimed = await self._store.write(partial(claim_dispatches, at=at, until=at + CLAIM_S, limit=free))
        for dispatch in claimed:
            self._sending += 1
            group.create_task(self._send(dispatch), name=f"send {dispatch.dispatch_id}")
        return LOOK_AGAIN_S if len(claimed) == free else 0.0

    async def _send(self, dispatch: ClaimedDispatch) -> None:
        try:
            await self._record(dispatch, *await self._try(dispatch))
        except FlowError as error:  # of the store; the claim ends by itself
            logger.warning("message %s will be sent again: %s", dispatch.dispatch_id, error)
        except Exception:  # a defect at one message must not end what works; its claim ends by itself too
            logger.exception("message %s will be sent again", dispatch.dispatch_id)
        finally:
            self._sending -= 1
            self._news.ring()

    async def _try(self, dispatch: ClaimedDispatch) -> tuple[Answer, str | None]:
        """What became of a try, and the body that every try sends."""
        body = dispatch.body
        if dispatch.reply_url is not None and not dispatch.reply_url.startswith(_REPLIES):
            return Answer(
                error=f"the command's response_url is not Slack's: it begins with no {_REPLIES}", kind="invalid"
            ), body
        try:
            receiver = await self._receiver(dispatch)
            body = body or await self._body(dispatch, receiver.kind)
            return await self.try_once(receiver, dispatch.dispatch_id, body), body
        except AttemptError as error:  # a secret that is not set today may be tomorrow
            return Answer(error=error.message, kind="resource"), body
        except FlowError:
            raise
        except Exception:  # the outermost edge of a message
            logger.exception("message %s could not be made", dispatch.dispatch_id)
            return Answer(error="it could not be made; the server's log says why"), body

    async def try_once(self, receiver: Receiver, message_id: str, body: str) -> Answer:
        """Send a message now, whatever becomes of it."""
        return await self._post.send(receiver.url, body, receiver.headers(message_id, self._clock.now(), body))

    async def _receiver(self, dispatch: ClaimedDispatch) -> Receiver:
        if dispatch.reply_url is not None:
            return Receiver(kind=NotificationKind.SLACK, url=dispatch.reply_url)
        row = await self._store.row(SQL["receiver"], (dispatch.notification_id,))
        if row is None:
            raise AttemptError("its receiver was deleted")
        return receiver_of(self._vault, *row)

    async def _body(self, dispatch: ClaimedDispatch, kind: NotificationKind) -> str:
        try:
            run = await self._describe(dispatch.run_id)
        except NotFound:  # it was pruned
            run = None
        if kind is NotificationKind.WEBHOOK:
            data = {"run_id": dispatch.run_id, "flow_id": dispatch.flow_id} if run is None else run.data()
            return webhook_body(dispatch.type, iso(dispatch.at) or "", data)
        if run is None:
            message = slack_text(f"{dispatch.type}: run {dispatch.run_id} of flow {dispatch.flow_id}")
        elif dispatch.reply_type is None:
            message = slack_body(dispatch.type, run)
        else:
            message = slack_body(dispatch.type, run, await self._output(dispatch))
            message |= {"response_type": dispatch.reply_type, "replace_original": False}
        return json.dumps(message, ensure_ascii=False)

    async def _output(self, dispatch: ClaimedDispatch) -> str | None:
        try:
            return await self._output_of(dispatch.run_id) if dispatch.type == "run.completed" else None
        except (IllegalMove, NotFound):  # it has none, or was pruned
            return None

    async def _record(self, dispatch: ClaimedDispatch, answer: Answer, body: str | None) -> None:
        at = self._clock.timestamp()
        if answer.error is None:
            await self._store.write(partial(end_sending, claimed=dispatch, at=at, status=answer.status or 0))
            return
        policy = POLICY if dispatch.reply_url is None else REPLY_POLICY
        decision = policy.decide(answer.kind, dispatch.attempts, self._clock.random)
        told: dict[str, Any] = {"status": answer.status, "error": answer.error, "body": body}
        if answer.status == GONE and dispatch.notification_id is not None:
            # Standard Webhooks: so says a receiver that wants no message any more.
            why = "the receiver answered 410 Gone"
            await self._store.write(partial(give_receiver_up, claimed=dispatch, at=at, why=why, **told))
        elif decision.retry:
            delay_s = max(decision.delay_s, min(answer.retry_after_s or 0.0, policy.max_delay_s))
            await self._store.write(partial(put_sending_off, claimed=dispatch, at=at, due_at=at + delay_s, **told))
        else:
            logger.warning("message %s was given up: %s", dispatch.dispatch_id, answer.error)
            await self._store.write(partial(give_sending_up, claimed=dispatch, at=at, **told))
