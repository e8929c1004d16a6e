"""The toolset `notifications`: who is told of runs, and the messages to them."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field, WithJsonSchema

from contexten.extensions.flow.notifications.model import DEFAULT_EVENTS, RUN_EVENTS, NotificationKind
from contexten.extensions.flow.notifications.views import (
    DispatchPage,
    DispatchView,
    NotificationCreated,
    NotificationPage,
    NotificationTest,
    NotificationView,
)
from contexten.extensions.flow.states import DispatchState
from contexten_tools.app import App
from contexten_tools.arguments import INTEGRAL, Arguments, Cursor, FlowId
from contexten_tools.budget import bounded
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

CREATE = """\
Tell another service of runs from now on: of all flows' runs, of one flow's, or of those of flows with a tag; never of \
sub-flows' runs.
- kind="webhook", url: a POST of {type, timestamp, data} with the run as get_flow_status shows it when it is first \
sent (it may have moved on since `timestamp`), signed by Standard Webhooks. Without `secret` a new one is made and \
shown in this answer only. A private address must be allowed in the server's settings.
- kind="slack", secret: a message; the secret is the URL of an incoming webhook.
`secret` is a name in the server's settings, never the secret itself. A message that is not taken is tried 8 times \
over about a day, then given up: list_dispatches(state="dead"), retry_dispatch. Call test_notification next."""

UPDATE = """\
Stop a receiver, or let it go on, also one that was disabled because it answered 410. enabled=false: nothing is sent, \
what waits stays until it is enabled again, and of what happens meanwhile it is never told."""

LIST = """\
List who is told of runs, newest first, with the number of messages that wait and that were given up."""

DELETE = """\
Tell a receiver nothing more. Its messages, also those that wait, are deleted with it. \
update_notification(enabled=false) only stops it."""

TEST = """\
Send a receiver a message that says that it is a test, once and now, and answer what the receiver said."""

DISPATCHES = """\
List messages to receivers, newest first. state: pending (waits for its first or next try), sending, sent, dead (given \
up; error says why)."""

RETRY = """\
Send a message that waits or was given up now, with all its tries, under the same webhook-id. A receiver that was \
disabled, because it answered 410, is enabled again."""

NotificationId = Annotated[str, Field(min_length=1, max_length=128, examples=["ntf_01hzy8k3c9w4ab7de2f"])]
DispatchId = Annotated[str, Field(min_length=1, max_length=128, examples=["dsp_01hzy8k3c9w4ab7de2f"])]
Kind = Annotated[
    str, Field(min_length=1, max_length=40), WithJsonSchema({"type": "string", "enum": list(NotificationKind)})
]
State = Annotated[
    str, Field(min_length=1, max_length=40), WithJsonSchema({"type": "string", "enum": list(DispatchState)})
]
RunEvent = Annotated[
    str, Field(min_length=1, max_length=40), WithJsonSchema({"type": "string", "enum": list(RUN_EVENTS)})
]
Rows = Annotated[int, Field(ge=1, le=100), INTEGRAL]


class CreateNotification(Arguments):
    """Of create_notification."""

    kind: Kind = Field(description="how it is told")
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        None, description="of a webhook: where to post", examples=["https://example.com/hooks/flows"]
    )
    secret: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="a secret's name in the server's settings", examples=["SLACK_URL"]
    )
    events: list[RunEvent] = Field(list(DEFAULT_EVENTS), min_length=1, max_length=20, description="what it is told of")
    flow_id: FlowId | None = Field(None, description="only of this flow's runs")
    tag: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="only of the runs of flows with this tag"
    )
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description="a name for people")


class NotificationChange(Arguments):
    """What to change of a receiver."""

    enabled: bool = Field(description="false stops it, true lets it go on")


class UpdateNotification(NotificationChange):
    """Of update_notification."""

    notification_id: NotificationId


class ListNotifications(Arguments):
    """Of list_notifications."""

    limit: Rows = Field(20, description="rows in a page")
    page: Cursor | None = Field(None, description="next_page of the answer before")


class OfNotification(Arguments):
    """Of delete_notification and test_notification."""

    notification_id: NotificationId


class ListDispatches(Arguments):
    """Of list_dispatches."""

    notification_id: NotificationId | None = Field(None, description="only to this receiver")
    state: State | None = Field(None, description="only those that stand so")
    limit: Rows = Field(20, description="rows in a page")
    page: Cursor | None = Field(None, description="next_page of the answer before")


class RetryDispatch(Arguments):
    """Of retry_dispatch."""

    dispatch_id: DispatchId


def register(server: ToolServer, app: App) -> None:
    """Add the tools of the toolset `notifications`."""

    async def create(given: CreateNotification, call: Call) -> dict[str, Any]:
        return bounded((await app.service.notifications.create(**dict(given), actor=call.actor)).data())

    async def update(given: UpdateNotification, call: Call) -> dict[str, Any]:
        return bounded((await app.service.notifications.update(**dict(given), actor=call.actor)).data())

    async def list_(given: ListNotifications, call: Call) -> dict[str, Any]:  # noqa: ARG001 - every tool is told of its call
        return bounded((await app.service.notifications.list(**dict(given))).data())

    async def delete(given: OfNotification, call: Call) -> dict[str, Any]:
        return bounded((await app.service.notifications.delete(given.notification_id, actor=call.actor)).data())

    async def test(given: OfNotification, call: Call) -> dict[str, Any]:
        return bounded((await app.service.notifications.test(given.notification_id, actor=call.actor)).data())

    async def dispatches(given: ListDispatches, call: Call) -> dict[str, Any]:  # noqa: ARG001 - as above
        return bounded((await app.service.notifications.dispatches(**dict(given))).data())

    async def retry(given: RetryDispatch, call: Call) -> dict[str, Any]:
        return bounded((await app.service.notifications.retry(given.dispatch_id, actor=call.actor)).data())

    writing = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
    changing = writing.model_copy(update={"idempotent_hint": True, "open_world_hint": False})
    deleting = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
    reading = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for tool in (
        FlowTool(
            name="create_notification",
            title="Create a notification",
            description=CREATE,
            arguments=CreateNotification,
            answer=lambda: answer_schema(NotificationCreated),
            annotations=writing,
            run=create,
            writes=True,
        ),
        FlowTool(
            name="update_notification",
            title="Change a notification",
            description=UPDATE,
            arguments=UpdateNotification,
            answer=lambda: answer_schema(NotificationView),
            annotations=changing,
            run=update,
            writes=True,
        ),
        FlowTool(
            name="list_notifications",
            title="List notifications",
            description=LIST,
            arguments=ListNotifications,
            answer=lambda: answer_schema(NotificationPage),
            annotations=reading,
            run=list_,
        ),
        FlowTool(
            name="delete_notification",
            title="Delete a notification",
            description=DELETE,
            arguments=OfNotification,
            answer=lambda: answer_schema(NotificationView),
            annotations=deleting,
            run=delete,
            writes=True,
        ),
        FlowTool(
            name="test_notification",
            title="Test a notification",
            description=TEST,
            arguments=OfNotification,
            answer=lambda: answer_schema(NotificationTest),
            annotations=writing,
            run=test,
            writes=True,
        ),
        FlowTool(
            name="list_dispatches",
            title="List messages",
            description=DISPATCHES,
            arguments=ListDispatches,
            answer=lambda: answer_schema(DispatchPage),
            annotations=reading,
            run=dispatches,
        ),
        FlowTool(
            name="retry_dispatch",
            title="Send a message again",
            description=RETRY,
            arguments=RetryDispatch,
            answer=lambda: answer_schema(DispatchView),
            annotations=writing,
            run=retry,
            writes=True,
        ),
    ):
        server.add_flow_tool(tool)
