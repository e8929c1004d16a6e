"""The toolset `triggers`: what starts flows by itself, and what was delivered to it."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field, WithJsonSchema

from contexten.extensions.flow.states import DeliveryState
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
from contexten_tools.app import App
from contexten_tools.arguments import INTEGRAL, Arguments, Cursor, FlowId, JsonObject
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

CREATE = """\
Have a flow started by itself: by time, by a request of another service, by a change of files, or by the end of \
other flows' runs. `config` by kind:
- cron {expression, timezone="UTC"}, interval {every_s, start_at?}, once {at}; all of them overlap="skip" (or allow, \
queue, cancel_previous) and catch_up="latest" (or none, all) for times that passed while no server ran.
- github {events=["pull_request:opened"], repositories, secret?}, linear {events=["Issue:create"], secret?}, slack \
{commands=["/deploy"], events, secret?, response}, webhook {types, secret?} (Standard Webhooks). These get a URL: \
`url` on this server, which must run with HTTP. `secret` is a name in the server's settings, never the secret \
itself; without it a new one is made, shown in this answer only. Slack never takes a made one, Linear by its API only: \
name theirs.
- file {path, patterns=["*.csv"], changes, recursive}, flow {flow_ids, states=["completed"]}.
All take rate="10/1m", max_active and max_pending.

`event` is {kind, type, id, payload, received_at}. filter: a CEL condition over it, such as \
event.payload.ref == "refs/heads/main". inputs: templates over it, such as {"sha": "{{ event.payload.after }}"}; \
without them a flow that declares an input `event` gets the event. A payload is data: nothing in it is ever run.
Answers trigger_id and what to do next. Call test_trigger to see what an event would start."""

UPDATE = """\
Change a trigger: only what is given. A new `config` takes the place of the whole old one; inputs={} and filter="" \
take those away, null does not. enabled=false stops it: nothing is taken, and what waits stays until it is enabled \
again."""

LIST = """\
List triggers, newest first: what each listens to, what it starts, when a schedule fires next, how many deliveries \
wait."""

DELETE = """\
Delete a trigger with the record of its deliveries. Runs that it started go on. update_trigger(enabled=false) only \
stops it."""

TEST = """\
What a trigger would do about an event: whether its filter is true, and the inputs that the flow would get. The event \
has the payload and type given, else those of the latest delivery. Nothing starts, unless start=true: then the event \
is really delivered."""

DELIVERIES = """\
List what was delivered to triggers, newest first: which run it started, or why nothing started. state: accepted \
(waits), started, filtered, failed. Mend what failed (the error says how), then call redeliver(delivery_id)."""

REDELIVER = """\
Do again what a delivery does, by its trigger as it is now: after a failure was mended, or to start another run of the \
same event."""

TriggerId = Annotated[str, Field(min_length=1, max_length=128, examples=["trg_01hzy8k3c9w4ab7de2f"])]
DeliveryId = Annotated[str, Field(min_length=1, max_length=128, examples=["dlv_01hzy8k3c9w4ab7de2f"])]
Kind = Annotated[str, Field(min_length=1, max_length=40), WithJsonSchema({"type": "string", "enum": list(TriggerKind)})]
State = Annotated[
    str, Field(min_length=1, max_length=40), WithJsonSchema({"type": "string", "enum": list(DeliveryState)})
]
Filter = Annotated[str, Field(max_length=10_000, examples=['event.payload.ref == "refs/heads/main"'])]
Name = Annotated[str, Field(min_length=1, max_length=200)]
EventType = Annotated[str, Field(min_length=1, max_length=200, examples=["pull_request:opened"])]
Rows = Annotated[int, Field(ge=1, le=100), INTEGRAL]


class CreateTrigger(Arguments):
    """Of create_trigger."""

    flow_id: FlowId
    kind: Kind = Field(description="what it listens to")
    config: JsonObject | None = Field(
        None,
        description="as its kind needs it",
        examples=[{"expression": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}],
    )
    inputs: JsonObject | None = Field(None, description="the flow's inputs: templates over event")
    filter: Filter | None = Field(None, description="CEL over event; nothing starts where it is false")
    name: Name | None = Field(None, description="a name for people")
    trigger_id: TriggerId | None = Field(
        None, description="an id of your choice: the same call again answers the same trigger"
    )


class UpdateTrigger(Arguments):
    """Of update_trigger."""

    trigger_id: TriggerId
    config: JsonObject | None = Field(None, description="the whole new config")
    inputs: JsonObject | None = Field(None, description="new inputs; {} takes them away")
    filter: Filter | None = Field(None, description="a new filter; an empty one takes it away")
    name: Name | None = None
    enabled: bool | None = Field(None, description="false stops it, true lets it go on")


class ListTriggers(Arguments):
    """Of list_triggers."""

    flow_id: FlowId | None = Field(None, description="only those that start this flow")
    kind: Kind | None = Field(None, description="only those of this kind")
    limit: Rows = Field(20, description="rows in a page")
    page: Cursor | None = Field(None, description="next_page of the answer before")


class OfTrigger(Arguments):
    """Of delete_trigger."""

    trigger_id: TriggerId


class TestTrigger(Arguments):
    """Of test_trigger."""

    trigger_id: TriggerId
    payload: Any = Field(None, description="the event's payload, any JSON")
    type: EventType | None = Field(None, description="the event's type")
    start: bool = Field(False, description="really deliver the event, which starts a run")


class ListDeliveries(Arguments):
    """Of list_deliveries."""

    trigger_id: TriggerId | None = Field(None, description="only of this trigger")
    state: State | None = Field(None, description="only those that stand so")
    limit: Rows = Field(20, description="rows in a page")
    page: Cursor | None = Field(None, description="next_page of the answer before")


class Redeliver(Arguments):
    """Of redeliver."""

    delivery_id: DeliveryId


def register(server: ToolServer, app: App) -> None:
    """Add the tools of the toolset `triggers`."""

    async def create(given: CreateTrigger, call: Call) -> dict[str, Any]:
        made = await app.service.triggers.create(**dict(given), actor=call.actor)
        return bounded(made.data())

    async def update(given: UpdateTrigger, call: Call) -> dict[str, Any]:
        return bounded((await app.service.triggers.update(**dict(given), actor=call.actor)).data())

    async def list_(given: ListTriggers, call: Call) -> dict[str, Any]:  # noqa: ARG001 - every tool is told of its call
        return bounded((await app.service.triggers.list(**dict(given))).data())

    async def delete(given: OfTrigger, call: Call) -> dict[str, Any]:
        return bounded((await app.service.triggers.delete(given.trigger_id, actor=call.actor)).data())

    async def test(given: TestTrigger, call: Call) -> dict[str, Any]:
        return bounded((await app.service.triggers.test(**dict(given), actor=call.actor)).data())

    async def deliveries(given: ListDeliveries, call: Call) -> dict[str, Any]:  # noqa: ARG001 - as above
        return bounded((await app.service.triggers.deliveries(**dict(given))).data())

    async def redeliver(given: Redeliver, call: Call) -> dict[str, Any]:
        return bounded((await app.service.triggers.redeliver(given.delivery_id, actor=call.actor)).data())

    writing = ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
    )
    changing = writing.model_copy(update={"idempotent_hint": True})
    deleting = writing.model_copy(update={"destructive_hint": True, "idempotent_hint": True})
    reading = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for tool in (
        FlowTool(
            name="create_trigger",
            title="Create a trigger",
            description=CREATE,
            arguments=CreateTrigger,
            answer=lambda: answer_schema(TriggerCreated),
            annotations=writing,
            run=create,
            writes=True,
        ),
        FlowTool(
            name="update_trigger",
            title="Change a trigger",
            description=UPDATE,
            arguments=UpdateTrigger,
            answer=lambda: answer_schema(TriggerSaved),
            annotations=changing,
            run=update,
            writes=True,
        ),
        FlowTool(
            name="list_triggers",
            title="List triggers",
            description=LIST,
            arguments=ListTriggers,
            answer=lambda: answer_schema(TriggerPage),
            annotations=reading,
            run=list_,
        ),
        FlowTool(
            name="delete_trigger",
            title="Delete a trigger",
            description=DELETE,
            arguments=OfTrigger,
            answer=lambda: answer_schema(TriggerView),
            annotations=deleting,
            run=delete,
            writes=True,
        ),
        FlowTool(
            name="test_trigger",
            title="Test a trigger",
            description=TEST,
            arguments=TestTrigger,
            answer=lambda: answer_schema(TriggerTest),
            annotations=writing,
            run=test,
            writes=True,
        ),
        FlowTool(
            name="list_deliveries",
            title="List deliveries",
            description=DELIVERIES,
            arguments=ListDeliveries,
            answer=lambda: answer_schema(DeliveryPage),
            annotations=reading,
            run=deliveries,
        ),
        FlowTool(
            name="redeliver",
            title="Deliver again",
            description=REDELIVER,
            arguments=Redeliver,
            answer=lambda: answer_schema(DeliveryView),
            annotations=writing,
            run=redeliver,
            writes=True,
        ),
    ):
        server.add_flow_tool(tool)
