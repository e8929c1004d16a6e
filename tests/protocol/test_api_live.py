"""Live changes over HTTP: server-sent events, many clients, slow ones, ones that come back, and the server's end."""

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from contexten.extensions.flow.live.watching import Change
from contexten_server.api import streams
from contexten_server.api.streams import EventStream, Pending, Streams, TooManyStreams, coalesced
from contexten_server.http import http_app

pytestmark = pytest.mark.anyio


class Stream:
    """One client of /api/events: what it was sent, event by event."""

    def __init__(self, status: int, received: AsyncIterator[str]) -> None:
        self.status = status
        self._received = received
        self._text = ""
        self.last_id: str | None = None

    async def next(self) -> tuple[str, dict[str, Any]]:
        while "\n\n" not in self._text:
            self._text += await anext(self._received)
        block, _, self._text = self._text.partition("\n\n")
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        self.last_id = fields.get("id", self.last_id)
        return fields["event"], json.loads(fields["data"])

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """The next change with those values."""
        while True:
            name, data = await self.next()
            if name == "change" and data.items() >= wanted.items():
                return data


@pytest.fixture
def follow(live: Any) -> Callable[..., Any]:
    """Opens streams on one application; each ends with its block, as when a browser leaves."""
    application: Any = http_app(live.server, live.app, host="127.0.0.1")

    @asynccontextmanager
    async def opened(since: str | None = None) -> AsyncIterator[Stream]:
        send, receive = anyio.create_memory_object_stream[dict[str, Any]](1000)
        left = anyio.Event()
        headers = [(b"host", b"127.0.0.1"), *([(b"last-event-id", since.encode())] if since is not None else [])]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/events",
            "raw_path": b"/api/events",
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
        }

        async def tell() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def received() -> AsyncIterator[str]:
            async for message in receive:
                yield message["body"].decode()

        async with anyio.create_task_group() as group, send, receive:
            group.start_soon(application, scope, tell, send.send)
            with anyio.fail_after(10):
                start = await receive.receive()
            yield Stream(start["status"], received())
            left.set()

    return opened


async def _run(live: Any) -> str:
    run = await live.service.execute_flow(workflow_def=live.flow(live.value_task()))
    with anyio.fail_after(10):
        await live.service.wait(run.run_id)
    return str(run.run_id)


async def test_a_client_is_told_of_each_change_after_its_commit(follow: Any, live: Any) -> None:
    with anyio.fail_after(20):
        async with follow() as stream:
            assert stream.status == 200
            name, hello = await stream.next()
            assert (name, stream.last_id) == ("hello", hello["cursor"])
            run_id = await _run(live)
            change = await stream.until(run_id=run_id, state="completed")
            assert change["flow_id"] == (await live.service.get_run(run_id)).flow_id
            assert "run.completed" in change["types"]
            assert (await live.service.events(run_id, since=change["cursor"])) == []


async def test_many_clients_hear_the_same(follow: Any, live: Any) -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            ready: list[anyio.Event] = [anyio.Event() for _ in range(30)]
            heard: list[str] = []

            async def listen(number: int) -> None:
                async with follow() as stream:
                    await stream.next()
                    ready[number].set()
                    heard.append((await stream.until(state="completed"))["run_id"])

            for number in range(len(ready)):
                group.start_soon(listen, number)
            for event in ready:
                await event.wait()
            run_id = await _run(live)
        assert heard == [run_id] * len(ready)


async def test_who_comes_back_is_told_what_happened_meanwhile(follow: Any, live: Any) -> None:
    with anyio.fail_after(20):
        async with follow() as stream:
            await stream.next()
            last_id = stream.last_id
        run_id = await _run(live)
        async with follow(since=last_id) as stream:
            assert (await stream.next())[0] == "hello"
            assert (await stream.until(run_id=run_id))["state"] == "completed"
            last_id = stream.last_id
        async with follow(since=last_id) as stream:
            assert (await stream.next())[0] == "hello"
            later = await _run(live)
            assert (await stream.until(state="completed"))["run_id"] == later


@pytest.mark.parametrize("since", ["elsewhere.5", "no cursor", "\x00"])
async def test_who_comes_back_to_another_journal_is_told_of_a_gap(follow: Any, live: Any, since: str) -> None:
    await _run(live)
    with anyio.fail_after(10):
        async with follow(since=since) as stream:
            assert [(await stream.next())[0], (await stream.next())[0]] == ["hello", "lag"]


async def test_a_stream_that_ends_leaves_no_listener(follow: Any, live: Any) -> None:
    before = len(live.service._watchers._listeners)
    with anyio.fail_after(10):
        async with follow() as stream:
            await stream.next()
            assert len(live.service._watchers._listeners) == before + 1
    assert len(live.service._watchers._listeners) == before


def _change(run_id: str, number: int, *types: str, state: str | None = None) -> Change:
    return Change(run_id=run_id, flow_id="f", state=state, types=types, cursor=f"db.{number}")


async def test_a_client_that_reads_too_slowly_is_told_that_it_missed_some() -> None:
    pending = Pending(limit=3)
    for number in range(5):
        pending.add(_change(f"run_{number}", number, "task.running"))
    with anyio.fail_after(1):
        await pending.wait()
    changes, is_lost = pending.take()
    assert is_lost
    assert [change.run_id for change in changes] == ["run_4"]
    assert pending.take() == ([], False)


def test_changes_of_one_run_become_one() -> None:
    told = coalesced(
        [
            _change("a", 1, "run.running", state="running"),
            _change("b", 2, "task.running"),
            _change("a", 3, "task.running", "task.log"),
            _change("a", 4, "task.running", "task.completed"),
        ]
    )
    assert told == [
        _change("a", 4, "run.running", "task.running", "task.log", "task.completed", state="running"),
        _change("b", 2, "task.running"),
    ]


async def test_a_client_that_stops_reading_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0)
    sent: list[str] = []

    async def tell(put: Any) -> None:
        await put("event: hello\n\n")
        await anyio.sleep_forever()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"].decode())
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        await EventStream(tell)({"type": "http"}, anyio.sleep_forever, send)  # type: ignore[arg-type]  # never answers
    assert sent == ["event: hello\n\n"]


def test_a_server_keeps_so_many_streams_and_no_more() -> None:
    kept = Streams(limit=1)
    with kept.opened():
        with pytest.raises(TooManyStreams) as refused, kept.opened():
            pass
        assert refused.value.retryable
    with kept.opened():
        assert kept.number == 1


async def test_open_streams_end_with_the_server(serve: Callable[..., Any]) -> None:
    served = serve()
    with anyio.fail_after(20):
        async with httpx.AsyncClient(base_url=served.base) as http, http.stream("GET", "/api/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.aiter_lines()
            assert await anext(lines) == "event: hello"
            served.process.send_signal(signal.SIGTERM)
            async for _ in lines:  # to the end of a complete response
                pass
    assert served.process.wait(10) == 0
