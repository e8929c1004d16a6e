"""What is shown of receivers and of the messages to them. No secret, and no part of an address that may be one."""

from __future__ import annotations

from pydantic import Field

from ..views import View


class NotificationView(View):
    """A receiver of messages about runs."""

    notification_id: str
    name: str
    kind: str = Field(description="webhook or slack")
    url: str | None = Field(None, description="of a webhook: without its query, which may hold a secret")
    secret_name: str | None = Field(None, description="the secret of the settings that it uses")
    events: list[str] = Field(description="what it is told of")
    flow_id: str | None = Field(None, description="of this flow's runs only")
    tag: str | None = Field(None, description="of the runs of flows with this tag only")
    enabled: bool
    disabled: str | None = Field(None, description="why it is not enabled: nothing is sent to it")
    pending: int = Field(0, description="messages that wait")
    dead: int = Field(0, description="messages that were given up")
    created_at: str


class NotificationCreated(NotificationView):
    """The answer to create_notification."""

    secret: str | None = Field(
        None, description="with which its messages are signed; shown this once. Absent where the settings name it"
    )


class NotificationPage(View):
    """A page of receivers."""

    notifications: list[NotificationView]
    next_page: str | None = None


class NotificationTest(View):
    """What became of a message that was sent to try a receiver."""

    notification_id: str
    ok: bool = Field(description="whether the receiver took it")
    status: int | None = Field(None, description="of its answer")
    error: str | None = None


class DispatchView(View):
    """A message to a receiver."""

    dispatch_id: str = Field(description="the header webhook-id, the same at each try")
    notification_id: str | None = Field(None, description="absent for an answer to a Slack command")
    kind: str = Field(description="webhook, slack, or reply for an answer to a Slack command")
    type: str = Field(description="what happened, such as run.failed")
    run_id: str
    flow_id: str
    state: str = Field(description="pending, sending, sent or dead")
    attempts: int
    next_attempt_at: str | None = None
    status: int | None = Field(None, description="of the receiver's last answer")
    error: str | None = Field(None, description="why the last try failed")
    happened_at: str
    ended_at: str | None = None


class DispatchPage(View):
    """A page of messages."""

    dispatches: list[DispatchView]
    next_page: str | None = None
