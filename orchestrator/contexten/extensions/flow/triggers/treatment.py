"""What becomes of one delivery: its run is submitted, it is filtered, it fails, or it has to wait."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..actor import Actor
from ..agents.secrets import SecretVault
from ..clock import Clock, iso
from ..definition import ExpressionError, TemplateProblem
from ..errors import FlowError, HandlerFailed, IdempotencyConflict, IllegalMove
from ..live.turns import RETRY_S
from ..runs.submission import DELIVERY_KEY, RunRequest
from ..scheduling.rates import RateLimit
from ..states import DeliveryState
from ..store import Store
from ..store.sql import SQL
from ..store.triggers import Settled, Waiting, WaitingDelivery
from ..views import RunView
from .checking import Rules, rules_error, saved_rules
from .configs import Overlap, ScheduleConfig, TriggerConfig, parse_config
from .model import TriggerEvent, TriggerKind

logger = logging.getLogger(__name__)

AT_ONCE = 20  # deliveries whose payloads are held at once, and those of a trigger without limits started together
_SLACK_S = 1e-6  # as in scheduling.rates

Handler: TypeAlias = Callable[[TriggerEvent], "Awaitable[RunRequest | None] | RunRequest | None"]
"""Decides what an event starts. It may be called again for the same event after a crash, and must answer the same flow
for the same event: the run is recorded once for a flow."""


@dataclass(frozen=True, slots=True)
class Held:
    """The delivery has to wait: so long, or until something changes."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LeftToOthers:
    """No function here handles the trigger's events any more."""


class _NobodyHandles(Exception):
    """This process has the function no more."""


class Treatment:
    """Treats deliveries whose trigger this process starts. Used on the event loop only."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        vault: SecretVault,
        execute: Callable[[RunRequest, Actor], Awaitable[RunView]],
        control: Callable[..., Awaitable[Any]],
        takes_event: Callable[[str], Awaitable[bool]],
        handlers: Mapping[str, Handler],
    ) -> None:
        """`takes_event` answers whether a flow declares an input `event`; `handlers` grows."""
        self._store = store
        self._clock = clock
        self._vault = vault
        self._execute = execute
        self._control = control
        self._takes_event = takes_event
        self._handlers = handlers
        self._room = asyncio.Semaphore(AT_ONCE)

    async def outcome(
        self, trigger: Waiting, delivery_id: str, *, may_be_started: bool
    ) -> Settled | Held | LeftToOthers:
        """What becomes of a delivery, whatever befalls it; `may_be_started` where whoever had the trigger before may
        have submitted its run."""
        async with self._room if trigger.handler is None else nullcontext():  # a function may take its time
            delivery: WaitingDelivery | None = None
            try:
                row = await self._store.row(SQL["waiting_delivery"], (delivery_id,))
                if row is None:  # deleted with its trigger just now
                    return Held(0.0)
                delivery = WaitingDelivery(*row)
                return await self._treat(trigger, delivery, may_be_started=may_be_started)
            except _NobodyHandles:
                return LeftToOthers()
            except FlowError as error:
                if delivery is not None and not error.may_pass:
                    return self._failed(trigger, delivery, error.as_dict())
                logger.warning("delivery %s will be tried again: %s", delivery_id, error)
                return Held(RETRY_S)
            except Exception:  # a defect must hold up no other delivery
                logger.exception("delivery %s could not be started", delivery_id)
                if delivery is None:
                    return Held(RETRY_S)
                message = "It could not be started; the server's log says why."
                return self._failed(trigger, delivery, {"code": "internal_error", "message": message})

    async def _treat(self, trigger: Waiting, delivery: WaitingDelivery, *, may_be_started: bool) -> Settled | Held:
        if may_be_started and trigger.flow_id is not None:
            run_id = await self._recorded(trigger.flow_id, _key(delivery))
            if run_id is not None:
                return self._started(trigger, delivery, run_id, config_of(trigger))
        event = event_of(trigger, delivery)
        config = config_of(trigger)
        try:
            rules = saved_rules(trigger.inputs, trigger.filter)
            if not rules.wants(event):
                return self._filtered(trigger, delivery, "its filter is not true of the event")
            held = await self._hold(trigger, delivery, config)
            if held is not None:
                return held
            request = await self._request(trigger, event, rules)
        except (ExpressionError, TemplateProblem) as error:
            return self._failed(trigger, delivery, rules_error(error))
        if request is None:
            return self._filtered(trigger, delivery, "its handler starts nothing for the event")
        key = _key(delivery)
        try:
            run_id = (await self._execute({**request, "idempotency_key": key}, _actor(trigger))).run_id
        except IdempotencyConflict:  # it was recorded before a crash, and the trigger or the flow changed since
            flow_id = request.get("flow_id") or trigger.flow_id
            recorded = await self._recorded(flow_id, key) if flow_id is not None else None
            if recorded is None:
                raise
            run_id = recorded
        return self._started(trigger, delivery, run_id, config)

    async def _hold(self, trigger: Waiting, delivery: WaitingDelivery, config: TriggerConfig) -> Settled | Held | None:
        """What the trigger's limits say: wait, or nothing at all; None where the run may start now."""
        overlap = config.overlap if isinstance(config, ScheduleConfig) else Overlap.ALLOW
        active: list[str] = []
        if config.is_bounded:
            active = [row[0] for row in await self._store.rows(SQL["active_runs"], (trigger.trigger_id,))]
        if active and overlap is Overlap.SKIP:
            return self._filtered(trigger, delivery, f"the run {active[-1]}, started before, has not ended")
        if config.rate is not None:
            rate = RateLimit.parse(config.rate)
            wait_s = rate.next_token_at(trigger.full_at) - self._clock.timestamp()
            if wait_s > _SLACK_S:
                return Held(min(wait_s, rate.interval_s))  # no longer, where the clock was set back
        if overlap is Overlap.CANCEL_PREVIOUS:
            for run_id in active:
                with suppress(IllegalMove):  # it ended just now
                    await self._control(run_id, "cancel", reason="its schedule fired again", actor=_actor(trigger))
        bound = 1 if overlap is Overlap.QUEUE else config.max_active
        return Held() if bound is not None and len(active) >= bound else None

    async def _request(self, trigger: Waiting, event: TriggerEvent, rules: Rules) -> RunRequest | None:
        if trigger.handler is not None:
            return await self._asked(trigger.handler, event)
        assert trigger.flow_id is not None  # noqa: S101 - a trigger has one of them
        inputs: Mapping[str, Any] = rules.inputs_for(event)
        if rules.inputs is None and await self._takes_event(trigger.flow_id):
            inputs = {"event": event.data()}
        return {"flow_id": trigger.flow_id, "inputs": inputs}

    async def _asked(self, name: str, event: TriggerEvent) -> RunRequest | None:
        handler = self._handlers.get(name)
        if handler is None:
            raise _NobodyHandles
        # gather asks it in a task of its own, which it may cancel, and which ends before this one does
        answers = await asyncio.gather(_answer(name, handler, event), return_exceptions=True)
        answer = answers[0]
        if isinstance(answer, FlowError):
            raise answer
        if isinstance(answer, BaseException):
            raise _raised(name, answer) from answer
        if answer is None or isinstance(answer, Mapping):
            return answer
        raise HandlerFailed(
            f"The handler {name!r} answered {type(answer).__name__}, not a mapping or None.",
            next="Mend it, then deliver the event again.",
        )

    async def _recorded(self, flow_id: str, key: str) -> str | None:
        row = await self._store.row(SQL["run_by_key"], (flow_id, key))
        return None if row is None else str(row[0])

    # What became of it
    def _started(self, trigger: Waiting, delivery: WaitingDelivery, run_id: str, config: TriggerConfig) -> Settled:
        at = self._clock.timestamp()
        return self._settled(
            trigger,
            delivery,
            DeliveryState.STARTED,
            run_id=run_id,
            is_active=config.is_bounded,
            full_at=RateLimit.parse(config.rate).full_after(trigger.full_at, at) if config.rate else None,
        )

    def _filtered(self, trigger: Waiting, delivery: WaitingDelivery, reason: str) -> Settled:
        return self._settled(trigger, delivery, DeliveryState.FILTERED, reason=reason)

    def _failed(self, trigger: Waiting, delivery: WaitingDelivery, error: Mapping[str, Any]) -> Settled:
        text = json.dumps(self._vault.mask(dict(error)))
        return self._settled(trigger, delivery, DeliveryState.FAILED, error=text)

    def _settled(self, trigger: Waiting, delivery: WaitingDelivery, state: DeliveryState, **more: Any) -> Settled:
        return Settled(
            trigger_id=trigger.trigger_id,
            delivery_id=delivery.delivery_id,
            round=delivery.round,
            state=state,
            at=self._clock.timestamp(),
            flow_id=trigger.flow_id,
            **more,
        )


def config_of(trigger: Waiting) -> TriggerConfig:
    """Raises InvalidArguments where another version of this program took it."""
    return parse_config(TriggerKind(trigger.kind), json.loads(trigger.config))


def event_of(trigger: Waiting, delivery: WaitingDelivery) -> TriggerEvent:
    """What was delivered."""
    return TriggerEvent(
        kind=trigger.kind,
        type=delivery.type,
        id=delivery.event_id,
        payload=json.loads(delivery.payload),
        received_at=iso(delivery.received_at) or "",
    )


async def _answer(name: str, handler: Handler, event: TriggerEvent) -> RunRequest | None:
    try:
        answer = handler(event)
        return await answer if inspect.isawaitable(answer) else answer
    except SystemExit as error:  # it may leave itself, not the program
        raise _raised(name, error) from error


def _raised(name: str, error: BaseException) -> HandlerFailed:
    """What to tell of a handler that raised, which the log is told in full."""
    logger.error("the handler %s raised", name, exc_info=error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return HandlerFailed(f"The handler {name!r} raised {what}", next="Mend it, then deliver the event again.")


def _actor(trigger: Waiting) -> Actor:
    return Actor(client=trigger.trigger_id, transport="trigger", tool=trigger.kind)


def _key(delivery: WaitingDelivery) -> str:
    """The idempotency key of the run that the delivery starts; a redelivery starts another."""
    return f"{DELIVERY_KEY}{delivery.delivery_id}" + (f":{delivery.round}" if delivery.round else "")
