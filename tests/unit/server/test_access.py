"""Who may reach the server over HTTP."""

import asyncio
from functools import partial

import anyio
import pytest
from starlette.types import Message, Scope, Send

from contexten.extensions.flow.outside.urls import is_loopback
from contexten.extensions.flow.settings import FlowSettings
from contexten_server import access
from contexten_server.access import BindRefused, EndWithServer, bracketed, check_bind, security_for
from contexten_server.http import bind


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.6.7", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_bind(host, FlowSettings())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.com", "fe80::1"])
def test_any_other_address_needs_one(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(BindRefused, match="CONTEXTEN_FLOW_TOKENS"):
        check_bind(host, FlowSettings())
    check_bind(host, FlowSettings(tokens=("token",)))
    check_bind(host, FlowSettings(oauth_issuer="https://auth.example.com", oauth_resource="https://flows.example.com"))


def test_what_is_reached_through_a_proxy_needs_one_on_this_machine_too() -> None:
    public_url = "https://flows.example.com"
    with pytest.raises(BindRefused, match=f"{public_url}.*CONTEXTEN_FLOW_TOKENS.*unset CONTEXTEN_FLOW_PUBLIC_URL"):
        check_bind("127.0.0.1", FlowSettings(public_url=public_url))
    check_bind("127.0.0.1", FlowSettings(public_url=public_url, tokens=("token",)))


def test_the_bound_address_and_this_machine_are_the_hosts_that_are_taken() -> None:
    security = security_for("192.168.1.5")
    assert security.enable_dns_rebinding_protection
    assert {"192.168.1.5:*", "127.0.0.1:*", "localhost:*", "[::1]:*"} <= set(security.allowed_hosts)
    assert "http://192.168.1.5:*" in security.allowed_origins
    assert "http://evil.example:*" not in security.allowed_origins


@pytest.mark.parametrize(
    ("resource", "hosts", "origin"),
    [
        ("https://Flows.example.com/mcp", {"flows.example.com", "flows.example.com:443"}, "https://flows.example.com"),
        ("http://flows.example.com:8080", {"flows.example.com:8080"}, "http://flows.example.com:8080"),
        ("https://[2001:db8::1]/mcp", {"[2001:db8::1]", "[2001:db8::1]:443"}, "https://[2001:db8::1]"),
    ],
)
def test_the_name_by_which_clients_know_the_server_is_taken_too(resource: str, hosts: set[str], origin: str) -> None:
    plain, security = security_for("127.0.0.1"), security_for("127.0.0.1", [resource])
    assert set(security.allowed_hosts) - set(plain.allowed_hosts) == hosts
    assert set(security.allowed_origins) - set(plain.allowed_origins) == {origin}


def test_bound_to_all_addresses_the_token_is_the_guard() -> None:
    assert not security_for("0.0.0.0").enable_dns_rebinding_protection


def test_an_address_of_ipv6_stands_in_brackets_in_a_url() -> None:
    assert (bracketed("::1"), bracketed("[::1]"), bracketed("localhost")) == ("[::1]", "[::1]", "localhost")


def test_a_taken_port_is_refused_with_what_to_do() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(BindRefused, match=f"127.0.0.1:{port}.*--port"):
            bind("127.0.0.1", port)


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BindRefused, match="cannot listen"):
        bind("no-such-host.invalid", 0)


@pytest.mark.anyio
@pytest.mark.parametrize("is_stopping", [False, True])
async def test_a_request_that_is_cut_off_is_an_answer_only_where_the_server_stops(is_stopping: bool) -> None:
    reached, stopping = anyio.Event(), anyio.Event()
    sent: list[Message] = []

    async def wait(*_: object) -> None:
        reached.set()
        await anyio.sleep_forever()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/hooks/x", "headers": []}
    request = asyncio.create_task(EndWithServer(wait, stopping)(scope, partial(asyncio.Future), send))
    with anyio.fail_after(5):
        await reached.wait()
        if is_stopping:
            stopping.set()
        request.cancel()
        await asyncio.wait([request])
    assert request.cancelled() is not is_stopping
    assert [message["status"] for message in sent if "status" in message] == ([503] if is_stopping else [])


@pytest.mark.anyio
async def test_a_client_that_reads_no_more_does_not_keep_a_request_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_FAREWELL_S", 0.0)
    begun, stopping = anyio.Event(), anyio.Event()

    async def stream(scope: Scope, receive: object, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    async def send(message: Message) -> None:
        begun.set()
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/api/events", "headers": []}
    request = asyncio.create_task(EndWithServer(stream, stopping)(scope, partial(asyncio.Future), send))
    with anyio.fail_after(5):
        await begun.wait()
        stopping.set()
        request.cancel()
        await asyncio.wait([request])
