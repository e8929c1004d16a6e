"""Server-sent events: one client's stream of changes, with what it has still to be told kept within bounds.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.live.watching import Change, Following

MAX_STREAMS = 500  # of a server; each costs a connection and at most MAX_PENDING changes
MAX_PENDING = 10_000
"""Changes that are kept for a client that reads slower than they come."""
PACE_S = 0.1
"""Between two batches: within one a run is named once."""
PING_S = 15.0  # proxies close what is silent for long
PATIENCE_S = 30.0
"""With a client that is connected and reads nothing; it counts as gone then, and its stream is free for others."""
_TYPES = 50  # of one event: what happened in a run between two batches

Put = Callable[[str], Awaitable[None]]


class TooManyStreams(FlowError):
    """All the streams that a server keeps open are in use."""

    code = "too_many_streams"
    retryable = True


class Streams:
    """The streams that are open now."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self.number = 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """One more while this lasts. Raises TooManyStreams."""
        if self.number >= self._limit:
            raise TooManyStreams(
                f"{self.number} streams are open, as many as this server keeps.",
                next="Close others, or try again later.",
            )
        self.number += 1
        try:
            yield
        finally:
            self.number -= 1


class Pending:
    """What one client has still to be told."""

    def __init__(self, limit: int = MAX_PENDING) -> None:
        self._limit = limit
        self._changes: list[Change] = []
        self._is_lost = False
        self._news = anyio.Event()

    def add(self, *changes: Change) -> None:
        """Keep changes; where they are too many all are forgotten, and the client is told that it missed some."""
        self._changes += changes
        if len(self._changes) > self._limit:
            self.lose()
        self._news.set()

    def lose(self) -> None:
        """The client missed changes that cannot be told any more."""
        self._changes = []
        self._is_lost = True
        self._news.set()

    async def wait(self) -> None:
        """Until there is something to tell."""
        await self._news.wait()

    def take(self) -> tuple[list[Change], bool]:
        """What there is to tell, and whether some was lost before it."""
        taken = self._changes, self._is_lost
        self._changes, self._is_lost, self._news = [], False, anyio.Event()
        return taken


def coalesced(changes: Sequence[Change]) -> list[Change]:
    """One change for each run and flow: the last state and place, and the types in order, each once."""
    gathered: dict[tuple[str | None, str | None], list[Change]] = {}
    for change in changes:
        gathered.setdefault((change.run_id, change.flow_id), []).append(change)
    return [
        Change(
            run_id=run_id,
            flow_id=flow_id,
            state=next((part.state for part in reversed(parts) if part.state is not None), None),
            types=tuple(dict.fromkeys(name for part in parts for name in part.types))[-_TYPES:],
            cursor=parts[-1].cursor,
        )
        for (run_id, flow_id), parts in gathered.items()
    ]


def event(name: str, data: dict[str, object], place: str | None = None) -> str:
    """One event as it is sent; `place` is what the client sends back as Last-Event-ID."""
    at = f"id: {place}\n" if place is not None else ""
    return f"event: {name}\n{at}data: {json.dumps(data, separators=(',', ':'))}\n\n"


async def tell_changes(pending: Pending, following: Following, put: Put) -> None:
    """Send changes as they come, until cancelled.

    The place stands at the last event of a batch: a client that was cut off in the middle of one gets all of it again.
    """
    if following.missed is None:
        pending.lose()
    else:
        pending.add(*following.missed)
    await _tell([("hello", {"cursor": following.place()})], pending, following, put)
    while True:
        with anyio.move_on_after(PING_S) as idle:
            await pending.wait()
        if idle.cancelled_caught:
            await put(": ping\n\n")
            continue
        await _tell([], pending, following, put)
        await anyio.sleep(PACE_S)


async def _tell(parts: list[tuple[str, dict[str, object]]], pending: Pending, following: Following, put: Put) -> None:
    place = following.place()
    changes, is_lost = pending.take()
    if is_lost:
        parts.append(("lag", {"cursor": place}))
    parts += [("change", asdict(change)) for change in coalesced(changes)]
    last = len(parts) - 1
    await put("".join(event(*part, place if number == last else None) for number, part in enumerate(parts)))


class EventStream(Response):
    """A response that goes on until its client leaves or the server stops."""

    media_type = "text/event-stream"

    def __init__(self, tell: Callable[[Put], Awaitable[None]]) -> None:
        """`tell` is given what sends text, and cancelled at the end."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:

            async def put(text: str) -> None:
                with anyio.move_on_after(PATIENCE_S) as patience:
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                if patience.cancelled_caught:
                    group.cancel_scope.cancel()

            async def leave() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(leave, name="client's end")
            await self._tell(put)
