"""Notifications: who is told of runs, and the messages to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from contexten.extensions.flow.notifications.views import (
    DispatchPage,
    DispatchView,
    NotificationCreated,
    NotificationPage,
    NotificationTest,
    NotificationView,
)
from contexten.extensions.flow.states import DispatchState
from contexten_server.api.listing import Page
from contexten_server.api.routing import WRITES, Caller, Served, family, shown
from contexten_tools.notifications import CreateNotification, NotificationChange, NotificationId

router = family("notifications")


class NewNotification(CreateNotification):
    """Who is to be told, and of what."""


class DispatchesAsked(Page):
    """Which messages."""

    notification_id: NotificationId | None = None
    state: DispatchState | None = Field(None, description="dead: those that were given up")


@router.get("/notifications", response_model=NotificationPage)
async def list_notifications(app: Served, asked: Annotated[Page, Query()]) -> Response:
    """Who is told of runs, newest first."""
    return shown(await app.service.notifications.list(**asked.model_dump()))


@router.post("/notifications", response_model=NotificationCreated, dependencies=[WRITES])
async def create_notification(app: Served, caller: Caller, given: NewNotification) -> Response:
    """Tell somebody of runs; a secret that is generated for it is in this answer only."""
    return shown(await app.service.notifications.create(**given.model_dump(), actor=caller))


@router.get("/notifications/{notification_id}", response_model=NotificationView)
async def get_notification(app: Served, notification_id: str) -> Response:
    """A notification."""
    return shown(await app.service.notifications.get(notification_id))


@router.patch("/notifications/{notification_id}", response_model=NotificationView, dependencies=[WRITES])
async def update_notification(app: Served, caller: Caller, notification_id: str, given: NotificationChange) -> Response:
    """Switch a notification off and on, also one whose receiver answered 410."""
    return shown(await app.service.notifications.update(notification_id, **given.model_dump(), actor=caller))


@router.delete("/notifications/{notification_id}", response_model=NotificationView, dependencies=[WRITES])
async def delete_notification(app: Served, caller: Caller, notification_id: str) -> Response:
    """Tell nothing more; answers what it was."""
    return shown(await app.service.notifications.delete(notification_id, actor=caller))


@router.post("/notifications/{notification_id}/test", response_model=NotificationTest, dependencies=[WRITES])
async def test_notification(app: Served, caller: Caller, notification_id: str) -> Response:
    """Send a message that says that it is a test, once, and tell what became of it."""
    return shown(await app.service.notifications.test(notification_id, actor=caller))


@router.get("/dispatches", response_model=DispatchPage)
async def list_dispatches(app: Served, asked: Annotated[DispatchesAsked, Query()]) -> Response:
    """Messages, newest first."""
    return shown(await app.service.notifications.dispatches(**asked.model_dump()))


@router.post("/dispatches/{dispatch_id}/retry", response_model=DispatchView, dependencies=[WRITES])
async def retry_dispatch(app: Served, caller: Caller, dispatch_id: str) -> Response:
    """Send a message that waits or was given up now."""
    return shown(await app.service.notifications.retry(dispatch_id, actor=caller))
