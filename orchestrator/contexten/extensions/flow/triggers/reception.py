"""What arrives for a trigger: verified, checked, and in the journal before anybody is answered."""

from __future__ import annotations

import sqlite3
from functools import partial

from ..actor import Actor
from ..agents.secrets import SecretVault
from ..clock import Clock, make_id
from ..definition import NotJson, check_json
from ..errors import AttemptError, InvalidArguments, Issue, TooManyDeliveries, TriggerNotFound
from ..store import Store
from ..store.sql import SQL
from ..store.triggers import Accepted, NewDelivery, accept
from .configs import TriggerConfig, parse_config
from .model import HookAnswer, HookRequest, Trigger, TriggerEvent, TriggerKind
from .sources import SOURCES, HookRefused
from .views import trigger_of

MAX_PAYLOAD_BYTES = 2 << 20  # as JSON: what a request of 1 MiB may become with its escapes written out
_MAX_NAMES_BYTES = 4096  # of an event's id and type


class Reception:
    """Takes events for the triggers of one database."""

    def __init__(self, store: Store, clock: Clock, vault: SecretVault) -> None:
        self._store = store
        self._clock = clock
        self._vault = vault

    async def receive(self, trigger_id: str, request: HookRequest) -> HookAnswer:
        """Answer the request to a hook."""
        row = await self._store.row(SQL["read_trigger"], (trigger_id,))
        if row is None or not TriggerKind(row["kind"]).is_hook:
            return _refusal(404, "trigger_not_found", "No hook has that address.")
        trigger = trigger_of(row)
        config = parse_config(trigger.kind, trigger.config)
        try:
            secret = self._secret(row, config)
        except AttemptError:
            return _refusal(503, "secret_missing", "The secret of this hook is not set on the server.", retryable=True)
        source = SOURCES[trigger.kind]
        try:
            heard = source.receive(request, config, secret, self._clock.now())
        except HookRefused as refused:
            return _refusal(refused.status, refused.code, refused.message)
        if isinstance(heard, HookAnswer):
            return heard
        if not trigger.enabled:
            return _refusal(409, "trigger_disabled", "The trigger is disabled; the event was not recorded.")
        try:
            accepted = await self._accept(trigger, config, heard)
        except NotJson as error:
            status = 413 if error.code == "too_large" else 400
            return _refusal(status, "invalid_payload", f"The payload cannot be taken: {error}")
        except TooManyDeliveries as error:
            return HookAnswer(status=429, body={"error": error.as_dict()})
        except TriggerNotFound as error:  # deleted just now
            return HookAnswer(status=404, body={"error": error.as_dict()})
        return source.accepted(heard, config, accepted.delivery_id, is_new=accepted.is_new)

    async def accept(self, trigger: Trigger, event: TriggerEvent, actor: Actor | None = None) -> Accepted:
        """Record an event once, with who delivers it. Raises TriggerNotFound, TooManyDeliveries, InvalidArguments where
        its payload is not JSON data."""
        config = parse_config(trigger.kind, trigger.config)
        try:
            return await self._accept(trigger, config, event, actor)
        except NotJson as error:
            raise not_taken(error) from None

    async def _accept(
        self, trigger: Trigger, config: TriggerConfig, event: TriggerEvent, actor: Actor | None = None
    ) -> Accepted:
        check_json([event.id, event.type], max_bytes=_MAX_NAMES_BYTES)
        now = self._clock.timestamp()
        new = NewDelivery(
            trigger_id=trigger.trigger_id,
            delivery_id=make_id("dlv_", now),
            event_id=event.id,
            same_ids=event.same_ids,
            type=event.type,
            payload=check_json(event.payload, max_bytes=MAX_PAYLOAD_BYTES),
            at=now,
            max_pending=config.max_pending,
            actor=None if actor is None else str(actor),
        )
        return await self._store.write(partial(accept, new=new))

    def _secret(self, row: sqlite3.Row, config: TriggerConfig) -> str:
        """What the sender signs with. Raises AttemptError where the secret named is not set."""
        name = config.secret_name
        if name is not None:
            return self._vault.value(name)
        return str(row["secret"])


def not_taken(error: NotJson) -> InvalidArguments:
    """The error for a payload that is not JSON data."""
    issue = Issue(path=f"/payload{error.path}", code=error.code, message=error.reason)
    return InvalidArguments(f"The payload cannot be taken: {error}", issues=[issue])


def _refusal(status: int, code: str, message: str, *, retryable: bool = False) -> HookAnswer:
    return HookAnswer(status=status, body={"error": {"code": code, "message": message, "retryable": retryable}})
