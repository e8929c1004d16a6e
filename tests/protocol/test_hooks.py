"""Hooks over HTTP: signed requests start flows, all others are refused without harm."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.live.watching import Change
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.triggers.model import HookAnswer
from contexten_server import hooks
from contexten_server.hooks import MAX_BODY_BYTES, MAX_DROPPED_BYTES
from contexten_server.http import http_app

pytestmark = pytest.mark.anyio

GREET = {
    "inputs": {"type": "object", "properties": {"number": {"type": "integer"}}},
    "stages": [
        {
            "name": "main",
            "tasks": [
                {
                    "name": "greet",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": {"number": "{{ inputs.number }}"}, "query": "number"},
                }
            ],
        }
    ],
}
TOO_DEEP = b'{"action": "opened", "a": ' + b"[" * 200 + b"]" * 200 + b"}"
ISSUE = {"action": "opened", "issue": {"number": 1347}, "repository": {"full_name": "octocat/Hello-World"}}


@pytest.fixture
def settings(settings: FlowSettings, monkeypatch: pytest.MonkeyPatch) -> FlowSettings:
    monkeypatch.setenv("SLACK", "8f742231b10e8888abcd99yyyzzz85a5")
    monkeypatch.setenv("UNSET", "")
    return FlowSettings(**{**settings.model_dump(), "secrets": "SLACK,UNSET", "tokens": "t" * 40})


@pytest.fixture
async def http(live: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(http_app(live.server, live.app, host="127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url="https://hooks.example.com") as client:
        yield client


async def test_a_path_with_a_slash_at_its_end_is_answered_and_not_redirected(http: httpx.AsyncClient) -> None:
    answer = await http.post("/hooks/greet/", content=b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def github_hook(service: FlowService, **more: Any) -> tuple[str, str]:
    """A hook of a flow that takes the issue's number; its path and secret."""
    flow = await service.create_flow(name="greet", workflow_def=GREET, flow_id="greet")
    made = await service.triggers.create(
        flow_id=flow.flow_id,
        kind="github",
        config={"events": ["issues:opened"]},
        inputs={"number": "{{ event.payload.issue.number }}"},
        actor=PYTHON,
        **more,
    )
    assert made.url is not None
    assert made.secret is not None
    return made.url, made.secret


def signed(secret: str, payload: Any = ISSUE, *, event: str = "issues", delivery: str = "d-1") -> dict[str, Any]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return {
        "content": body,
        "headers": {
            "x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
            "x-github-event": event,
            "x-github-delivery": delivery,
            "content-type": "application/json",
        },
    }


async def settled(service: FlowService, delivery_id: str) -> Any:
    """The delivery, once something has become of it."""
    changed = anyio.Event()

    def hear(change: Change) -> None:
        changed.set()

    stop = service.subscribe(hear)
    try:
        with anyio.fail_after(20):
            while (delivery := await service.triggers.delivery(delivery_id)).state == "accepted":
                await changed.wait()
                changed = anyio.Event()
    finally:
        stop()
    return delivery


async def test_a_signed_request_starts_the_flow_with_what_it_brought(live: Any, http: httpx.AsyncClient) -> None:
    path, secret = await github_hook(live.service)
    answer = await http.post(path, **signed(secret))
    assert answer.status_code == 202
    delivery = await settled(live.service, answer.json()["delivery_id"])
    assert (delivery.state, delivery.type) == ("started", "issues:opened")
    await live.service.wait(delivery.run_id)
    assert json.loads(await live.service.task_output(delivery.run_id, "greet")) == 1347


async def test_the_same_delivery_starts_nothing_again(live: Any, http: httpx.AsyncClient) -> None:
    path, secret = await github_hook(live.service)
    first = await http.post(path, **signed(secret))
    again = await http.post(path, **signed(secret))
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert len((await live.service.triggers.deliveries()).deliveries) == 1


async def test_an_event_that_nobody_asked_for_is_answered_and_starts_nothing(
    live: Any, http: httpx.AsyncClient
) -> None:
    path, secret = await github_hook(live.service)
    for request in (signed(secret, {"zen": "Keep it simple."}, event="ping"), signed(secret, {}, event="push")):
        assert (await http.post(path, **request)).status_code == 200
    assert (await live.service.triggers.deliveries()).deliveries == []


async def test_only_the_signature_is_asked_for(live: Any, http: httpx.AsyncClient) -> None:
    path, secret = await github_hook(live.service)
    request = signed(secret)
    request["headers"] |= {"host": "evil.example", "origin": "https://evil.example"}
    assert (await http.post(path, **request)).status_code == 202
    assert (await http.post("/mcp", json={})).status_code in {401, 421}


async def test_what_is_not_signed_or_wrongly_is_refused_and_not_recorded(live: Any, http: httpx.AsyncClient) -> None:
    path, secret = await github_hook(live.service)
    for request, code in (
        (signed("another"), "wrong_signature"),
        ({"content": b"{}"}, "missing_signature"),
        ({**signed(secret), "content": b"{}"}, "wrong_signature"),
    ):
        answer = await http.post(path, **request)
        assert answer.status_code == 401
        error = answer.json()["error"]
        assert error["code"] == code
        assert secret not in answer.text
    assert (await live.service.triggers.deliveries()).deliveries == []


async def test_a_header_that_comes_twice_is_not_read_two_ways(live: Any, http: httpx.AsyncClient) -> None:
    path, secret = await github_hook(live.service)
    request = signed(secret)
    twice = [*request["headers"].items(), ("x-hub-signature-256", "sha256=00")]
    assert (await http.post(path, content=request["content"], headers=twice)).status_code == 401
    assert (await http.post(path, content=request["content"], headers=twice[::-1])).status_code == 401


async def test_a_huge_body_is_refused_and_an_endless_one_not_read_to_its_end(
    live: Any, http: httpx.AsyncClient
) -> None:
    path, secret = await github_hook(live.service)
    answer = await http.post(path, **signed(secret, b"x" * (MAX_BODY_BYTES + 1)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 65536

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in endless():
            yield chunk

    answer = await http.post(path, content=chunks(), headers=signed(secret, b"")["headers"])
    assert answer.status_code == 413
    assert sent <= (MAX_BODY_BYTES + MAX_DROPPED_BYTES) // 65536 + 3


async def test_a_body_that_does_not_come_is_not_waited_for(
    live: Any, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_BODY_S", 0.01)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.Event().wait()

    with anyio.fail_after(10):
        assert (await http.post("/hooks/trg_1", content=stalled())).status_code == 408


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, TOO_DEEP, b'{"issue": "\\ud800"}'],
    ids=["cut off", "not UTF-8", "NaN", "endless", "too deep", "half a character"],
)
async def test_a_body_that_cannot_be_read_is_refused(live: Any, http: httpx.AsyncClient, body: bytes) -> None:
    path, secret = await github_hook(live.service)
    answer = await http.post(path, **signed(secret, body))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in {"malformed_payload", "invalid_payload"}
    assert (await live.service.triggers.deliveries()).deliveries == []


async def test_an_unknown_hook_is_told_apart_from_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.post("/hooks/trg_nobody", content=b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "trigger_not_found")
    assert (await http.post("/hooks/a%00%ff%2f..", content=b"{}")).status_code == 404


async def test_a_hook_is_only_posted_to(live: Any, http: httpx.AsyncClient) -> None:
    path, _ = await github_hook(live.service)
    answer = await http.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_slack_is_answered_in_its_own_way(live: Any, http: httpx.AsyncClient) -> None:
    await live.service.create_flow(name="greet", workflow_def=GREET, flow_id="greet")
    made = await live.service.triggers.create(
        flow_id="greet", kind="slack", config={"secret": "SLACK", "commands": ["/greet"]}, actor=PYTHON
    )
    now = str(int(SystemClock().timestamp()))

    def from_slack(body: bytes, kind: str) -> dict[str, Any]:
        text = f"v0:{now}:".encode() + body
        signature = hmac.new(b"8f742231b10e8888abcd99yyyzzz85a5", text, hashlib.sha256).hexdigest()
        headers = {"x-slack-signature": f"v0={signature}", "x-slack-request-timestamp": now, "content-type": kind}
        return {"content": body, "headers": headers}

    challenge = await http.post(
        made.url, **from_slack(b'{"type": "url_verification", "challenge": "3eZbrw1aBm2"}', "application/json")
    )
    assert (challenge.status_code, challenge.json()) == (200, {"challenge": "3eZbrw1aBm2"})
    command = await http.post(
        made.url, **from_slack(b"command=%2Fgreet&text=&trigger_id=1.2.a", "application/x-www-form-urlencoded")
    )
    assert command.status_code == 200
    assert command.json()["text"].startswith("`/greet` was taken")
    assert "token" not in command.text


async def test_a_sender_is_asked_to_come_again_where_the_server_cannot_take_it(
    live: Any, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def receive(*_: Any) -> HookAnswer:
        return HookAnswer(status=429, body={"error": {"code": "too_many_deliveries"}})

    monkeypatch.setattr(live.service.triggers, "receive", receive)
    answer = await http.post("/hooks/trg_1", content=b"{}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")


async def test_a_fault_of_ours_is_logged_and_told_to_nobody(
    live: Any, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive(*_: Any) -> HookAnswer:
        raise RuntimeError("/home/somebody/secret.txt")

    monkeypatch.setattr(live.service.triggers, "receive", receive)
    answer = await http.post("/hooks/trg_1", content=b"{}")
    assert answer.status_code == 500
    assert "somebody" not in answer.text
    assert "somebody" in caplog.text


def posted(base: str, *parts: bytes) -> bytes:
    """What the server answers to a sender that writes all of its request before it reads; "" where it was reset."""
    with socket.create_connection((urlsplit(base).hostname, urlsplit(base).port), timeout=30) as sender:
        try:
            for part in (b"POST /hooks/nobody HTTP/1.1\r\nHost: hooks.example.com\r\n", *parts):
                sender.sendall(part)
            return sender.recv(65536)
        except ConnectionError:
            return b""


def test_a_sender_that_writes_all_of_a_huge_body_before_it_reads_is_answered(serve: Callable[..., Any]) -> None:
    base = serve().base
    size = 25 << 20
    chunk = b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20))
    for name, parts in {
        "announced": (b"Content-Length: %d\r\n\r\n" % size, b"x" * size),
        "in chunks": (b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 25, b"0\r\n\r\n"),
        "held back until the server agrees": (b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % size,),
    }.items():
        assert posted(base, *parts).startswith(b"HTTP/1.1 413 "), name


async def test_what_is_dropped_of_a_huge_body_is_not_waited_for(
    live: Any, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_BODY_S", 0.01)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x" * 65536
        await anyio.Event().wait()

    announced = {"content-length": str(MAX_BODY_BYTES + 1)}
    with anyio.fail_after(10):
        assert (await http.post("/hooks/trg_1", content=stalled(), headers=announced)).status_code == 413
