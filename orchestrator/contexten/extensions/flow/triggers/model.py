"""What triggers are made of: an event from outside, the trigger that hears it, and the delivery that records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TriggerKind(StrEnum):
    """What a trigger listens to."""

    CRON = "cron"
    INTERVAL = "interval"
    ONCE = "once"
    GITHUB = "github"
    LINEAR = "linear"
    SLACK = "slack"
    WEBHOOK = "webhook"
    FILE = "file"
    FLOW = "flow"

    @property
    def is_schedule(self) -> bool:
        """Whether time alone fires it."""
        return self in (TriggerKind.CRON, TriggerKind.INTERVAL, TriggerKind.ONCE)

    @property
    def is_hook(self) -> bool:
        """Whether it has a URL, `/hooks/{trigger_id}`."""
        return self in (TriggerKind.GITHUB, TriggerKind.LINEAR, TriggerKind.SLACK, TriggerKind.WEBHOOK)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEvent:
    """What happened outside; `inputs` and `filter` of a trigger see it as `event`."""

    kind: str
    type: str
    """What happened, in the words of who sent it: `pull_request:opened`, `Issue:create`, `/deploy`, `tick`."""
    id: str
    """The sender's own id of the delivery: a second one with this id starts nothing."""
    payload: Any
    """JSON data as it came; never a template, never a command."""
    received_at: str
    """ISO 8601, UTC."""
    same_ids: tuple[str, str] | None = None
    """Where servers cannot agree on one id: from this to that, as text, each is an id of this very event."""

    def data(self) -> dict[str, Any]:
        """As expressions see it."""
        return {
            "kind": self.kind,
            "type": self.type,
            "id": self.id,
            "payload": self.payload,
            "received_at": self.received_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRequest:
    """An HTTP request to a hook, before anybody has vouched for it."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAnswer:
    """What the sender is answered at once."""

    status: int
    body: Any = None
    """JSON data; None for an empty body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger as it is recorded, without its secret."""

    trigger_id: str
    name: str
    kind: TriggerKind
    config: Mapping[str, Any]
    flow_id: str | None = None
    handler: str | None = None
    """Instead of a flow: the name of a Python function that decides what to start."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    filter: str | None = None
    enabled: bool = True
    created_at: float = 0.0
    next_at: float | None = None
    """Of a schedule: when it fires next; seconds since the epoch."""
