from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.outside.addresses import HostAllowance, is_public, literal_address
from contexten.extensions.flow.outside.guarded_transport import GuardedBackend

Run = Callable[..., Awaitable[Any]]

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700:4700::1111"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_of_the_public_internet_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_wrapping_an_address_in_ipv6_never_makes_it_public(address: ipaddress.IPv4Address) -> None:
    inner = is_public(str(address))
    assert is_public(f"::ffff:{address}") == inner
    assert is_public(f"64:ff9b::{address}") == inner
    assert not is_public(f"::{address}") or int(address) < 2
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80))))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:127.0.0.1", "::ffff:7f00:1"),
        ("example.com", None),
        ("1.2.3.4.example", None),
        ("999.1.1.1", None),
        ("", None),
    ],
)
def test_every_spelling_of_an_address_is_known_as_one(host: str, address: str | None) -> None:
    found = literal_address(host)
    assert (found and ipaddress.ip_address(found)) == (address and ipaddress.ip_address(address))


def test_allowed_hosts_match_by_name_and_port() -> None:
    allowance = HostAllowance(["Service.Test", "10.0.0.1:8080", "[::1]:81", "::2", "db.test:5432"])
    assert allowance.allows("service.test", 1)
    assert allowance.allows("service.test.", 1)
    assert allowance.allows("10.0.0.1", 8080)
    assert not allowance.allows("10.0.0.1", 8081)
    assert allowance.allows("::1", 81)
    assert not allowance.allows("::1", 80)
    assert allowance.allows("0:0::2", 9)
    assert not allowance.allows("db.test", 80)
    assert not allowance.allows("evil.service.test", 1)


async def refused(call: Awaitable[Any]) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await call
    assert caught.value.kind == "invalid", caught.value.message
    return caught.value


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0",
        "\u2460\u2461\u2466.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "example.com@127.0.0.1",
    ],
)
async def test_no_spelling_of_the_loopback_reaches_a_server_there(run_tools: Run, web: Any, host: str) -> None:
    web.on("/")
    with pytest.raises(AttemptError) as caught:
        await run_tools("http_client", url=f"http://{host}:{web.port}/", timeout_s=5)
    assert caught.value.kind in ("invalid", "network")
    assert web.requests == []


@pytest.mark.anyio
async def test_a_refusal_says_how_to_allow_the_host(run_tools: Run, web: Any) -> None:
    error = await refused(run_tools("http_client", url=web.url))
    assert f"add {web.host} to allow_hosts" in error.message


@pytest.mark.anyio
async def test_a_name_that_resolves_to_a_private_address_is_refused(run_tools: Run, web: Any) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    await refused(run_tools("http_client", url=f"http://innocent.example:{web.port}/", resolver=resolver))
    assert web.requests == []


@pytest.mark.anyio
async def test_one_private_address_among_public_ones_refuses_the_name(run_tools: Run) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["1.1.1.1", "::ffff:10.0.0.1"]

    await refused(run_tools("http_client", url="http://mixed.example/", resolver=resolver))


@pytest.mark.anyio
async def test_an_allowed_name_is_reached_wherever_it_resolves_with_its_own_host_header(
    run_tools: Run, web: Any
) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    web.on("/", body=b"in")
    name = f"service.test:{web.port}"
    answer = await run_tools("http_client", settings={"allow_hosts": (name,)}, url=f"http://{name}/", resolver=resolver)
    assert answer["body"] == "in"
    assert web.requests[0]["headers"]["host"] == name


class _Recorder(httpcore.AsyncNetworkBackend):
    """Connects nowhere, and remembers where to."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        self.addresses.append(host)
        raise httpcore.ConnectError("not connected")


@pytest.mark.anyio
async def test_a_name_that_answers_differently_a_moment_later_gains_nothing() -> None:
    answers = iter([["1.1.1.1", "8.8.8.8"], ["127.0.0.1"]])

    async def resolver(host: str, port: int) -> list[str]:
        return next(answers)

    backend, recorder = GuardedBackend(HostAllowance([]), resolver), _Recorder()
    backend._inner = recorder  # type: ignore[assignment] # stands in for the network
    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("rebinding.example", 80)
    assert recorder.addresses == ["1.1.1.1", "8.8.8.8"]
    with pytest.raises(AttemptError):
        await backend.connect_tcp("rebinding.example", 80)
    assert recorder.addresses == ["1.1.1.1", "8.8.8.8"]


@pytest.mark.anyio
async def test_unix_sockets_are_refused() -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return []

    with pytest.raises(AttemptError):
        await GuardedBackend(HostAllowance([]), resolver).connect_unix_socket("/run/docker.sock")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://[::ffff:7f00:1]:{port}/"]
)
async def test_a_redirect_to_a_private_address_is_refused(
    run_tools: Run, web: Any, start_web: Any, target: str
) -> None:
    inner = start_web()
    url = web.on("/go", 302, headers={"Location": target.format(port=inner.port)})
    await refused(run_tools("http_client", settings={"allow_hosts": (web.host,)}, url=url))
    assert len(web.requests) == 1
    assert inner.requests == []


@pytest.mark.anyio
async def test_credentials_are_dropped_on_the_way_to_another_host_and_kept_on_the_same(
    run_tools: Run, web: Any, start_web: Any
) -> None:
    other = start_web()
    other.on("/end")
    web.on("/end")
    settings = {"allow_hosts": (web.host, other.host)}
    headers = {"Authorization": "Bearer t0ken", "Cookie": "a=b", "X-Plain": "stays"}
    away = web.on("/away", 307, headers={"Location": f"{other.url}/end"})
    await run_tools("http_client", settings=settings, url=away, headers=headers)
    got = other.requests[0]["headers"]
    assert "authorization" not in got
    assert "cookie" not in got
    assert got["x-plain"] == "stays"
    here = web.on("/here", 307, headers={"Location": "/end"})
    await run_tools("http_client", settings=settings, url=here, headers=headers)
    assert web.requests[-1]["headers"]["authorization"] == "Bearer t0ken"


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str | None]]]:
    """A TLS server on loopback with a certificate for service.test only; the names that clients asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service.test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("service.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((self.headers["Host"] or "").encode())

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that does not trust the certificate hangs up

    names: list[str | None] = []
    server = Server(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    tls.sni_callback = lambda _socket, asked, _context: names.append(asked)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port, names
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.anyio
async def test_tls_is_verified_for_the_name_and_not_for_the_address(
    run_tools: Run, tls_server: tuple[int, list[str | None]]
) -> None:
    port, names = tls_server

    async def resolver(host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    settings = {"allow_hosts": ("service.test", "other.test")}
    answer = await run_tools("http_client", settings=settings, url=f"https://service.test:{port}/", resolver=resolver)
    assert answer["body"] == f"service.test:{port}"
    assert names == ["service.test"]
    with pytest.raises(AttemptError) as caught:
        await run_tools("http_client", settings=settings, url=f"https://other.test:{port}/", resolver=resolver)
    assert caught.value.kind == "network"
    assert "other.test" in caught.value.message
