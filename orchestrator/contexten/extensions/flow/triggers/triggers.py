"""Triggers: what happens outside, or at a time, starts flows."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..actor import Actor
from ..agents.secrets import SecretVault
from ..answers.paging import check_list, list_name, place_of_page
from ..answers.reading import Answers
from ..clock import Clock, iso, make_id
from ..definition import NotJson, check_json
from ..errors import FlowNotFound, Issue, TriggerNotFound
from ..flows.saving import Flows
from ..live.consumer import JournalConsumer
from ..live.watching import Watchers
from ..nearest import checked_choice, nearest_name
from ..runs.submission import RunRequest, encode_inputs
from ..settings import FlowSettings
from ..states import DeliveryState
from ..store import Stale, Store, Transaction
from ..store import triggers as changes
from ..store.cursors import encode
from ..store.sql import SQL
from ..views import IssueView, RunView
from .checking import check_circle, missing_inputs, undeclared_inputs, unknown_flows, vendors_own_secret
from .clockwork import Clockwork
from .configs import FlowConfig, TriggerConfig, parse_config
from .drafts import Drafts, check_same, checked_kind
from .endings import ENDS, take_ends
from .model import HookAnswer, HookRequest, Trigger, TriggerEvent
from .processing import Processing
from .reception import MAX_PAYLOAD_BYTES, Reception, not_taken
from .schedule import TICK, tick_payload
from .treatment import Handler, Treatment
from .trial import foretell
from .views import (
    DeliveryPage,
    DeliveryView,
    TriggerCreated,
    TriggerPage,
    TriggerSaved,
    TriggerTest,
    TriggerView,
    delivery_view,
    next_step,
    trigger_fields,
    trigger_of,
)
from .watches import FileWatches


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerParts:
    """What triggers are built of."""

    store: Store
    watchers: Watchers
    clock: Clock
    vault: SecretVault
    settings: FlowSettings
    answers: Answers
    flows: Flows
    execute: Callable[[RunRequest, Actor], Awaitable[RunView]]
    control: Callable[..., Awaitable[Any]]


class Triggers:
    """The triggers of one database, and their deliveries."""

    def __init__(self, parts: TriggerParts) -> None:
        self._store = parts.store
        self._watchers = parts.watchers
        self._clock = parts.clock
        self._vault = parts.vault
        self._settings = parts.settings
        self._answers = parts.answers
        self._flows = parts.flows
        self._execute = parts.execute
        self._control = parts.control
        self._drafts = Drafts(parts.settings, parts.vault.names)
        self._reception = Reception(parts.store, parts.clock, parts.vault)
        self._handlers: dict[str, Handler] = {}
        self._lookers: tuple[Processing, Clockwork] | None = None
        """Where this process drives: who must know of its handlers."""

    # Its life
    def start(self, group: asyncio.TaskGroup, server_id: Callable[[], str]) -> Sequence[asyncio.Task[None]]:
        """Start deliveries, fire schedules, watch files and hear of ends, in tasks of the group, until each is
        cancelled. `server_id` answers under which id this process drives runs."""
        store, watchers, clock = self._store, self._watchers, self._clock
        treatment = Treatment(
            store=store,
            clock=clock,
            vault=self._vault,
            execute=self._execute,
            control=self._control,
            takes_event=self._takes_event,
            handlers=self._handlers,
        )
        processing = Processing(
            store=store,
            watchers=watchers,
            clock=clock,
            treatment=treatment,
            server_id=server_id,
            handlers=self._handlers.keys(),
        )
        clockwork = Clockwork(store=store, watchers=watchers, clock=clock, handlers=self._handlers.keys())
        self._lookers = (processing, clockwork)
        ends = JournalConsumer(changes.CONSUMER, store, watchers, clock, types=ENDS, take=take_ends)
        files = FileWatches(
            store=store, watchers=watchers, clock=clock, deliver=self.deliver, allow_paths=self._settings.allow_paths
        )
        return (
            group.create_task(processing.run(), name="deliveries"),
            group.create_task(clockwork.run(), name="schedules"),
            group.create_task(ends.run(), name="ends of runs"),
            group.create_task(files.run(), name="watched files"),
        )

    def handle(self, name: str, function: Handler | None) -> None:
        """Process here the deliveries of triggers whose `handler` has that name: the function, sync or async, gets a
        TriggerEvent and answers the RunRequest to submit, or None. It may be called again for an event after a crash,
        and must answer the same flow for the same event: the run is recorded once for a flow. No process without the
        function takes these deliveries, nor fires their schedules. With None the process does so no more."""
        if function is None:
            self._handlers.pop(name, None)
        else:
            self._handlers[name] = function
        for looker in self._lookers or ():
            looker.look()

    # Managing
    async def create(
        self,
        *,
        flow_id: str | None = None,
        kind: str,
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        filter: str | None = None,  # noqa: A002 - the word of the tools
        name: str | None = None,
        trigger_id: str | None = None,
        handler: str | None = None,
        actor: Actor,
    ) -> TriggerCreated:
        """Save a trigger that starts `flow_id`, or asks `handler` what to start.

        `inputs` are templates over `event`, whose values go in as they are; without them the flow gets
        `{"event": event}` where its inputs declare `event`, else nothing. The same call again, with a `trigger_id`,
        answers the trigger that is there (`existing`). A secret that is made is in this answer only.

        Raises InvalidArguments with all that is wrong, FlowNotFound.
        """
        the_kind = checked_kind(kind)
        now = self._clock.now()
        row = self._drafts.new(
            trigger_id=make_id("trg_", now.timestamp()) if trigger_id is None else trigger_id,
            kind=the_kind,
            config=(parsed := parse_config(the_kind, config or {})),
            flow_id=flow_id,
            handler=handler,
            inputs=inputs,
            condition=filter,
            name=name,
            now=now,
            actor=actor,
        )
        if flow_id is not None and await self._store.row(SQL["flow_version"], (flow_id,)) is None:
            raise await self._answers.no_flow(flow_id)
        before = await self._store.row(SQL["read_trigger"], (row.trigger_id,))
        if before is not None:
            check_same(before, row)
            return TriggerCreated(**(await self.get(row.trigger_id)).model_dump(), existing=True)
        await self._store.write(partial(_save, change=changes.create, row=row, config=parsed))
        view = await self.get(row.trigger_id)
        return TriggerCreated(
            **view.model_dump(),
            secret=row.secret,
            next=next_step(the_kind, row.trigger_id),
            warnings=await self._doubts(row, parsed),
        )

    async def update(
        self,
        trigger_id: str,
        *,
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        filter: str | None = None,  # noqa: A002 - the word of the tools
        name: str | None = None,
        enabled: bool | None = None,
        actor: Actor,
    ) -> TriggerSaved:
        """Change what is given; `{}` takes the inputs away, an empty filter the filter. A disabled trigger takes
        nothing; what waits goes on when it is enabled again. Raises TriggerNotFound, InvalidArguments."""
        while True:
            row, parsed = self._drafts.changed(
                await self._row(trigger_id),
                config=config,
                inputs=inputs,
                condition=filter,
                name=name,
                enabled=enabled,
                now=self._clock.now(),
                actor=actor,
            )
            with suppress(Stale):  # another change came first, which holds with this one
                await self._store.write(partial(_save, change=changes.update, row=row, config=parsed))
                view = await self.get(trigger_id)
                return TriggerSaved(**view.model_dump(), warnings=await self._doubts(row, parsed))

    async def list(
        self, *, flow_id: str | None = None, kind: str | None = None, limit: int = 50, page: str | None = None
    ) -> TriggerPage:
        """Newest first. Raises InvalidArguments."""
        check_list(None, (), limit)
        the_kind = None if kind is None else str(checked_kind(kind))
        name = list_name(self._store.identity, "triggers", flow_id, the_kind)
        asked = {"before": place_of_page(name, page), "flow_id": flow_id, "kind": the_kind, "limit": limit + 1}
        rows = await self._store.rows(SQL["list_triggers"], asked)
        shown = rows[:limit]
        return TriggerPage(
            triggers=await self._views(shown),
            next_page=encode(name, shown[-1]["seq"]) if len(rows) > limit else None,
        )

    async def get(self, trigger_id: str) -> TriggerView:
        """Raises TriggerNotFound."""
        [view] = await self._views([await self._row(trigger_id)])
        return view

    async def delete(self, trigger_id: str, *, actor: Actor) -> TriggerView:
        """Delete a trigger with its deliveries; runs that it started go on. Answers what was deleted. Raises
        TriggerNotFound."""
        view = await self.get(trigger_id)
        while await self._store.write(partial(changes.clear, trigger_id=trigger_id)):
            pass
        at = self._clock.timestamp()
        await self._store.write(partial(changes.delete, trigger_id=trigger_id, at=at, actor=str(actor)))
        return view

    async def test(
        self,
        trigger_id: str,
        *,
        payload: object = None,
        type: str | None = None,
        start: bool = False,
        actor: Actor,
    ) -> TriggerTest:
        """What the trigger would do about an event: with that payload and type, or those of its latest delivery, or
        nothing in it. With `start` the event is really delivered, unless the trigger is disabled. Raises
        TriggerNotFound, InvalidArguments."""
        row = await self._row(trigger_id)
        trigger = trigger_of(row)
        event = await self._sample(trigger, payload, type)
        told = await foretell(trigger, event, self._takes_event, self._check_inputs)
        known = {"trigger_id": trigger_id, "event": event.data(), **told}
        if start and trigger.enabled:
            known["delivery"] = await self.deliver(trigger, event, actor)
        return TriggerTest(**known)

    # Delivering
    async def receive(self, trigger_id: str, request: HookRequest) -> HookAnswer:
        """Answer the request to a hook: the sender is verified, and the event journaled before it is answered."""
        return await self._reception.receive(trigger_id, request)

    async def deliver(self, trigger: Trigger, event: TriggerEvent, actor: Actor | None = None) -> DeliveryView | None:
        """Record an event for a trigger: journaled when this returns, with who delivers it where that is not its
        sender; None where it was delivered before. Raises TriggerNotFound, TooManyDeliveries, InvalidArguments where
        its payload is not JSON data."""
        accepted = await self._reception.accept(trigger, event, actor)
        return await self.delivery(accepted.delivery_id) if accepted.is_new else None

    async def deliveries(
        self, trigger_id: str | None = None, *, state: str | None = None, limit: int = 20, page: str | None = None
    ) -> DeliveryPage:
        """Newest first, without payloads. Raises InvalidArguments, TriggerNotFound."""
        check_list(None, (), limit)
        if state is not None:
            checked_choice("state", state, tuple(DeliveryState))
        name = list_name(self._store.identity, "deliveries", trigger_id, state)
        asked = {"before": place_of_page(name, page), "trigger_id": trigger_id, "state": state, "limit": limit + 1}
        query = "list_deliveries" if trigger_id is None else "list_deliveries_of"
        if state == DeliveryState.FAILED:
            query = "list_failed_deliveries"
        rows = await self._store.rows(SQL[query], asked)
        if not rows and trigger_id is not None:
            await self._row(trigger_id)  # whether it is there
        shown = rows[:limit]
        return DeliveryPage(
            deliveries=[delivery_view(row) for row in shown],
            next_page=encode(name, shown[-1]["seq"]) if len(rows) > limit else None,
        )

    async def delivery(self, delivery_id: str) -> DeliveryView:
        """With its payload. Raises DeliveryNotFound."""
        row = await self._store.row(SQL["read_delivery"], (delivery_id,))
        if row is None:
            raise changes.no_delivery(delivery_id)
        return delivery_view(row, with_payload=True)

    async def redeliver(self, delivery_id: str, *, actor: Actor) -> DeliveryView:
        """Do again what a delivery does, by the trigger as it is now; one that started a run starts another. Nothing
        changes where it waits already. Raises DeliveryNotFound, IllegalMove where that run is under way and the
        trigger bounds its runs."""
        at = self._clock.timestamp()
        await self._store.write(partial(changes.redeliver, delivery_id=delivery_id, at=at, actor=str(actor)))
        return await self.delivery(delivery_id)

    # Parts
    async def _row(self, trigger_id: str) -> sqlite3.Row:
        row = await self._store.row(SQL["read_trigger"], (trigger_id,))
        if row is not None:
            return row
        near = nearest_name(trigger_id, [str(row[0]) for row in await self._store.rows(SQL["trigger_ids"])])
        hint = f" Did you mean {near!r}?" if near else ""
        raise TriggerNotFound(
            f"There is no trigger {trigger_id[:128]!r}.{hint}", next="Call list_triggers() to see the triggers."
        )

    async def _views(self, rows: Sequence[sqlite3.Row]) -> Sequence[TriggerView]:
        trigger_ids = json.dumps([row["trigger_id"] for row in rows])
        waiting = dict(map(tuple, await self._store.rows(SQL["waiting_deliveries"], (trigger_ids,))))
        needed = any(row["handler"] is not None for row in rows)
        handled = {row[0] for row in await self._store.rows(SQL["handled"])} if needed else set()
        return [TriggerView(**trigger_fields(row, waiting.get(row["trigger_id"], 0), handled)) for row in rows]

    async def _takes_event(self, flow_id: str) -> bool:
        """Whether the flow declares an input `event`. Raises FlowNotFound."""
        schema = await self._inputs_of(flow_id)
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        return isinstance(properties, Mapping) and "event" in properties

    async def _check_inputs(self, flow_id: str, inputs: Mapping[str, Any]) -> None:
        """Raises FlowNotFound, or InvalidInputs where a run with them is refused."""
        encode_inputs((await self._flows.saved(flow_id, None)).plan, inputs, self._settings)

    async def _inputs_of(self, flow_id: str) -> object:
        """The JSON Schema of the flow's inputs, or None. Raises FlowNotFound."""
        return (await self._flows.saved(flow_id, None)).plan.definition.inputs

    async def _doubts(self, row: changes.TriggerRow, config: TriggerConfig) -> Sequence[IssueView] | None:
        """What was saved and is probably not meant so."""
        doubts = vendors_own_secret(row.kind, config.secret_name)
        if isinstance(config, FlowConfig):
            doubts += unknown_flows(config.flow_ids, [str(row[0]) for row in await self._store.rows(SQL["flow_ids"])])
        if row.flow_id is not None:
            inputs = json.loads(row.inputs) if row.inputs else None
            try:
                schema = await self._inputs_of(row.flow_id)
                doubts += [*undeclared_inputs(inputs, schema), *missing_inputs(inputs, schema)]
            except FlowNotFound as error:  # it was deleted since
                doubts.append(Issue(path="/flow_id", code="unknown_flow", message=error.message, got=row.flow_id))
        return [IssueView(**issue.as_dict()) for issue in doubts] or None

    async def _sample(self, trigger: Trigger, payload: object, type: str | None) -> TriggerEvent:
        now = self._clock.now()
        sample: Any = payload
        latest = await self._store.row(SQL["latest_payload"], (trigger.trigger_id,)) if payload is None else None
        if latest is not None:
            sample, type = json.loads(latest["payload"]), type or latest["type"]
        elif payload is None:
            sample = tick_payload(now) if trigger.kind.is_schedule else {}
        try:
            check_json(sample, max_bytes=MAX_PAYLOAD_BYTES)
        except NotJson as error:
            raise not_taken(error) from None
        return TriggerEvent(
            kind=trigger.kind,
            type=type or (TICK if trigger.kind.is_schedule else "test"),
            id=make_id("test_", now.timestamp()),
            payload=sample,
            received_at=iso(now.timestamp()) or "",
        )


def _save(
    tx: Transaction,
    change: Callable[[Transaction, changes.TriggerRow], None],
    row: changes.TriggerRow,
    config: TriggerConfig,
) -> None:
    """Make a change, after a look for a circle among what is saved by then. Raises InvalidArguments."""
    if isinstance(config, FlowConfig) and row.flow_id is not None:
        edges = [(edge[0], edge[1], edge[2]) for edge in tx.rows(SQL["flow_edges"]) if edge[0] != row.trigger_id]
        check_circle(edges, config.flow_ids, row.flow_id)
    change(tx, row)
