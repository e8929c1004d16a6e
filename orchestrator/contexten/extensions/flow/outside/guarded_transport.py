"""HTTP connections that go only where they may.

The name is resolved here, its addresses are checked, and the connection is made to an address that was checked: a
name that answers differently a moment later gains nothing. Requests keep the name, so that Host and the TLS
certificate are right.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import certifi
import httpcore
import httpx
from typing_extensions import override

from ..errors import AttemptError
from .addresses import HostAllowance, is_link_local, is_public, literal_address
from .daemon_thread import call_in_daemon_thread

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Answers the IP addresses of a host; raises OSError where it has none."""

MAX_CONNECTIONS = 200  # well under the usual limit of 1,024 open files
_ONE_ADDRESS_S = 10.0  # then the next address of the host is tried


class SystemResolver:
    """The machine's resolver, on threads that cannot hold up the end of the process."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(32)

    async def __call__(self, host: str, port: int) -> list[str]:
        def resolve() -> list[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(entry[4][0]) for entry in found))

        return await call_in_daemon_thread(resolve, name="flow-resolver", limiter=self._limiter)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses and to the hosts that are allowed; refuses others with an AttemptError (invalid)."""

    def __init__(self, allowance: HostAllowance, resolver: Resolver) -> None:
        self._allowance = allowance
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        error: Exception = httpcore.ConnectError("the host has no address")
        addresses = await self._checked(host, port)
        for address in addresses:
            patience = timeout if len(addresses) == 1 else _ONE_ADDRESS_S
            try:
                return await self._inner.connect_tcp(address, port, patience, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        raise error

    async def _checked(self, host: str, port: int) -> list[str]:
        literal = literal_address(host)
        if literal is not None:
            addresses = [literal]
        else:
            try:
                addresses = await self._resolver(host, port)
            except (OSError, UnicodeError) as error:
                raise httpcore.ConnectError(f"the name {host} cannot be resolved") from error
        if not self._allowance.allows(host, port):
            for address in addresses:
                if not is_public(address):
                    raise refused(host, port, address)
        return addresses

    @override
    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AttemptError("http_client does not speak over Unix sockets.", kind="invalid")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def refused(host: str, port: int, address: str) -> AttemptError:
    """The refusal of a host whose address is not public."""
    shown = f"[{host}]" if ":" in host else host
    advice = f" If flows may reach it, add {shown}:{port} to allow_hosts in the settings (CONTEXTEN_FLOW_ALLOW_HOSTS)."
    return AttemptError(
        f"{shown} is, or resolves to, an address that is not public (private, loopback, link-local or reserved)."
        + ("" if is_link_local(address) else advice),
        kind="invalid",
    )


class GuardedTransport(httpx.AsyncBaseTransport):
    """A pool of guarded connections, without proxies."""

    def __init__(self, allowance: HostAllowance, resolver: Resolver) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_ssl_context(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=20,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(allowance, resolver),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        stream = request.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError("the request's content must be readable asynchronously")
        with _as_httpx_errors():
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx_errors():
            async for part in self._response.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._response.aclose()


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error)) from error
    except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.LocalProtocolError(str(error)) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise httpx.NetworkError(str(error)) from error


def _ssl_context() -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's authorities (SSL_CERT_FILE counts), and, where it has none,
    context.load_verify_locations(certifi.where())
    return context
