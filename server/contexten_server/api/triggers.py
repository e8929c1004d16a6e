"""Triggers, and what was delivered to them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field, model_validator
from starlette.responses import JSONResponse

from contexten.extensions.flow.states import DeliveryState
from contexten.extensions.flow.triggers.configs import CONFIGS
from contexten.extensions.flow.triggers.model import TriggerKind
from contexten.extensions.flow.triggers.views import (
    DeliveryPage,
    DeliveryView,
    TriggerCreated,
    TriggerPage,
    TriggerSaved,
    TriggerTest,
    TriggerView,
)
from contexten_server.api.listing import Page
from contexten_server.api.routing import WRITES, Caller, Served, family, shown
from contexten_tools.arguments import Arguments, FlowId, JsonObject
from contexten_tools.schemas import plain
from contexten_tools.triggers import CreateTrigger, EventType, Filter, Name, TriggerId

router = family("triggers")


class TriggersAsked(Page):
    """Which triggers."""

    flow_id: FlowId | None = Field(None, description="those that start this flow only")
    kind: TriggerKind | None = None


class NewTrigger(CreateTrigger):
    """A trigger to make."""


class TriggerChange(Arguments):
    """What to change of a trigger; the rest stays. Null takes away what a trigger can be without, `inputs` and
    `filter`; elsewhere it counts as absent."""

    config: JsonObject | None = Field(None, description="the whole new config")
    inputs: JsonObject | None = Field(None, description="new inputs; null or {} takes them away")
    filter: Filter | None = Field(None, description="a new filter; null or an empty one takes it away")
    name: Name | None = None
    enabled: bool | None = Field(None, description="false stops it, true lets it go on")

    @model_validator(mode="before")
    @classmethod
    def _with_nothing_for_null(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        nothing: dict[str, Any] = {"inputs": {}, "filter": ""}
        return {name: nothing.get(name) if value is None else value for name, value in given.items()}


class TriggerTry(Arguments):
    """An event to try a trigger with."""

    payload: Any = Field(None, description="JSON as its sender would send it; that of its latest delivery by default")
    type: EventType | None = Field(None, description="what happened")
    start: bool = Field(False, description="deliver it really")


class DeliveriesAsked(Page):
    """Which deliveries."""

    trigger_id: TriggerId | None = None
    state: DeliveryState | None = None


@router.get("/triggers", response_model=TriggerPage)
async def list_triggers(app: Served, asked: Annotated[TriggersAsked, Query()]) -> Response:
    """Triggers, newest first."""
    return shown(await app.service.triggers.list(**asked.model_dump()))


@router.post("/triggers", response_model=TriggerCreated, dependencies=[WRITES])
async def create_trigger(app: Served, caller: Caller, given: NewTrigger) -> Response:
    """Make a trigger; a secret that is generated for it is in this answer only."""
    return shown(await app.service.triggers.create(**given.model_dump(), actor=caller))


@router.get("/trigger-kinds", response_model=dict[TriggerKind, dict[str, Any]])
async def list_trigger_kinds() -> Response:
    """What a trigger of each kind is told: the JSON Schema of its `config`."""
    return JSONResponse({kind: plain(config.model_json_schema()) for kind, config in CONFIGS.items()})


@router.get("/triggers/{trigger_id}", response_model=TriggerView)
async def get_trigger(app: Served, trigger_id: str) -> Response:
    """A trigger."""
    return shown(await app.service.triggers.get(trigger_id))


@router.patch("/triggers/{trigger_id}", response_model=TriggerSaved, dependencies=[WRITES])
async def update_trigger(app: Served, caller: Caller, trigger_id: str, given: TriggerChange) -> Response:
    """Change a trigger, or switch it off and on."""
    change = given.model_dump(exclude_unset=True)
    return shown(await app.service.triggers.update(trigger_id, **change, actor=caller))


@router.delete("/triggers/{trigger_id}", response_model=TriggerView, dependencies=[WRITES])
async def delete_trigger(app: Served, caller: Caller, trigger_id: str) -> Response:
    """Remove a trigger; answers what it was."""
    return shown(await app.service.triggers.delete(trigger_id, actor=caller))


@router.post("/triggers/{trigger_id}/test", response_model=TriggerTest, dependencies=[WRITES])
async def test_trigger(app: Served, caller: Caller, trigger_id: str, given: TriggerTry) -> Response:
    """What a trigger would do about an event; nothing starts unless `start` is true."""
    return shown(await app.service.triggers.test(trigger_id, **given.model_dump(), actor=caller))


@router.get("/deliveries", response_model=DeliveryPage)
async def list_deliveries(app: Served, asked: Annotated[DeliveriesAsked, Query()]) -> Response:
    """What was delivered to triggers, newest first."""
    return shown(await app.service.triggers.deliveries(**asked.model_dump()))


@router.get("/deliveries/{delivery_id}", response_model=DeliveryView)
async def get_delivery(app: Served, delivery_id: str) -> Response:
    """A delivery with its payload."""
    return shown(await app.service.triggers.delivery(delivery_id))


@router.post("/deliveries/{delivery_id}/redeliver", response_model=DeliveryView, dependencies=[WRITES])
async def redeliver(app: Served, caller: Caller, delivery_id: str) -> Response:
    """Do again what a delivery does, by the trigger as it is now."""
    return shown(await app.service.triggers.redeliver(delivery_id, actor=caller))
