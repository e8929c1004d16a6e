"""Live changes as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Request

from contexten_server.api.routing import Served, family
from contexten_server.api.streams import EventStream, Pending, Put, Streams, tell_changes

router = family("live")

Tell = Callable[[Put], Awaitable[None]]

_DESCRIPTION = """\
`hello` {cursor} first; `change` {run_id, flow_id, state, types, cursor} after commits, those of one run within a \
tenth of a second as one (`state` where the run entered one, `types` of the journal's new entries); `lag` {cursor} \
where changes were missed: read again what is shown. Comments keep the connection open."""


async def _told(
    app: Served,
    request: Request,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=200)] = None,
) -> AsyncIterator[Tell]:
    """What tells one client of changes, as long as its response lasts."""
    streams: Streams = request.app.state.streams
    with streams.opened():
        pending = Pending()
        following = await app.service.follow(pending.add, since=last_event_id)
        try:
            yield partial(tell_changes, pending, following)
        finally:
            following.stop()


@router.get(
    "/events",
    status_code=200,
    response_class=EventStream,
    responses={200: {"description": _DESCRIPTION, "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow_changes(tell: Annotated[Tell, Depends(_told)]) -> EventStream:
    """Changes as they are committed, by whichever server. With the header Last-Event-ID, what EventSource sends when it
    connects again, those that were missed come first."""
    return EventStream(tell)
