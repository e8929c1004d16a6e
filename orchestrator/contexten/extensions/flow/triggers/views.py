"""What is answered about triggers and their deliveries."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field

from ..clock import iso
from ..views import IssueView, View
from .model import Trigger, TriggerKind


class TriggerView(View):
    """A trigger, without its secret."""

    trigger_id: str
    name: str
    kind: str
    config: dict[str, Any]
    flow_id: str | None = Field(None, description="the flow that it starts")
    handler: str | None = Field(None, description="instead of a flow: the Python function that decides what to start")
    inputs: dict[str, Any] | None = Field(None, description="templates over event; absent: see create_trigger")
    handled: bool | None = Field(
        None, description="of a handler: whether a program that runs has it; until one does, nothing fires or starts"
    )
    filter: str | None = Field(None, description="CEL over event; nothing starts where it is false")
    enabled: bool
    url: str | None = Field(None, description="of a hook: where its sender posts to, below the server's address")
    next_at: str | None = Field(None, description="of a schedule: when it fires next")
    waiting: int = Field(description="deliveries of which nothing has become yet")
    created_at: str
    updated_at: str


class TriggerSaved(TriggerView):
    """The answer to update_trigger."""

    warnings: list[IssueView] | None = Field(None, description="what was saved and may not be meant")


class TriggerCreated(TriggerSaved):
    """The answer to create_trigger."""

    secret: str | None = Field(None, description="what the sender signs with; shown this once")
    existing: bool = Field(False, description="the same trigger was there already; nothing changed")
    next: str | None = Field(None, description="what to do now")


class TriggerPage(View):
    """Triggers, newest first."""

    triggers: list[TriggerView]
    next_page: str | None = None


class DeliveryError(View):
    """Why a delivery started nothing."""

    code: str
    message: str
    next: str | None = None
    issues: list[dict[str, Any]] | None = None


class DeliveryView(View):
    """One event that was delivered to a trigger."""

    delivery_id: str
    trigger_id: str
    event_id: str = Field(description="the sender's own id")
    type: str
    state: str = Field(description="accepted (nothing became of it yet), started, filtered or failed")
    run_id: str | None = None
    reason: str | None = Field(None, description="why nothing was to start")
    error: DeliveryError | None = None
    redeliveries: int = 0
    earlier_run_ids: list[str] | None = Field(
        None, description="the runs that it started before it was delivered again, oldest first"
    )
    received_at: str
    ended_at: str | None = None
    payload: Any = Field(None, description="as it came; only where one delivery was asked for")


class DeliveryPage(View):
    """Deliveries, newest first."""

    deliveries: list[DeliveryView]
    next_page: str | None = None


class TriggerTest(View):
    """What a trigger would do about an event."""

    trigger_id: str
    starts: bool = Field(description="whether a run would start; of a handler, which alone decides: may start")
    event: dict[str, Any]
    inputs: dict[str, Any] | None = Field(None, description="what the flow would get")
    reason: str | None = Field(None, description="why nothing would start, or who decides")
    error: DeliveryError | None = None
    delivery: DeliveryView | None = Field(None, description="where it was really delivered")


def trigger_of(row: sqlite3.Row) -> Trigger:
    """A trigger's row, without its secret."""
    return Trigger(
        trigger_id=row["trigger_id"],
        name=row["name"],
        kind=TriggerKind(row["kind"]),
        config=json.loads(row["config"]),
        flow_id=row["flow_id"],
        handler=row["handler"],
        inputs=json.loads(row["inputs"]) if row["inputs"] else {},
        filter=row["filter"],
        enabled=bool(row["enabled"]),
        created_at=row["created_at"],
        next_at=row["next_at"],
    )


def trigger_fields(row: sqlite3.Row, waiting: int, handled: Collection[str]) -> dict[str, Any]:
    """The fields of a trigger's view; `handled` are the handlers that programs have which run."""
    return {
        "trigger_id": row["trigger_id"],
        "name": row["name"],
        "kind": row["kind"],
        "config": json.loads(row["config"]),
        "flow_id": row["flow_id"],
        "handler": row["handler"],
        "handled": None if row["handler"] is None else row["handler"] in handled,
        "inputs": json.loads(row["inputs"]) if row["inputs"] else None,
        "filter": row["filter"],
        "enabled": bool(row["enabled"]),
        "url": hook_path(row["trigger_id"]) if TriggerKind(row["kind"]).is_hook else None,
        "next_at": iso(row["next_at"]),
        "waiting": waiting,
        "created_at": iso(row["created_at"]) or "",
        "updated_at": iso(row["updated_at"]) or "",
    }


def hook_path(trigger_id: str) -> str:
    """Where a hook's sender posts to."""
    return f"/hooks/{trigger_id}"


def next_step(kind: TriggerKind, trigger_id: str) -> str:
    """What to do once a trigger was made."""
    if kind.is_hook:
        return f"Have its sender post to {hook_path(trigger_id)} on this server, which must run with HTTP."
    return f"Call test_trigger(trigger_id={trigger_id!r}) to see what an event would start."


def delivery_view(row: sqlite3.Row, *, with_payload: bool = False) -> DeliveryView:
    """A delivery's row as a view."""
    return DeliveryView(
        delivery_id=row["delivery_id"],
        trigger_id=row["trigger_id"],
        event_id=row["event_id"],
        type=row["type"],
        state=row["state"],
        run_id=row["run_id"],
        reason=row["reason"],
        error=error_view(json.loads(row["error"])) if row["error"] else None,
        redeliveries=row["round"],
        earlier_run_ids=json.loads(row["earlier_run_ids"]) or None,
        received_at=iso(row["received_at"]) or "",
        ended_at=iso(row["ended_at"]),
        payload=json.loads(row["payload"]) if with_payload else None,
    )


def error_view(error: Mapping[str, Any]) -> DeliveryError:
    """An error as the store keeps it."""
    return DeliveryError(
        code=error["code"], message=error["message"], next=error.get("next"), issues=error.get("issues")
    )
