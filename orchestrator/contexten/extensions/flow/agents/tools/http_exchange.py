"""The exchange behind http_client: request, redirects, response, each within its bounds."""

from __future__ import annotations

import errno
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.to_thread
import httpx

from ...clock import Clock
from ...errors import AttemptError
from ...outside.addresses import HostAllowance
from ...outside.guarded_transport import GuardedTransport, Resolver, SystemResolver
from ...outside.json_text import dump_json, mend_text
from ...outside.retry_after import retry_after
from ...recovery.kinds import kind_of_status
from ..protocol import Json
from .formats import Format, FormatError, decode, decode_text
from .http_client import HttpClientParameters
from .tool import ToolEnvironment

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
_ERROR_BODY_BYTES = 4096  # of a failed answer: enough to see what was wrong
_ERROR_BODY_CHARS = 500
_INLINE_BYTES = 1 << 16  # decodes in about a millisecond; more goes to a worker thread
_AUTHORITY_WITH_SECRET = re.compile(r"[^/?#]*://[^/?#]*\[secret:")
_JSON_TYPE = re.compile(r"(?:application|text)/(?:[\w.+-]+\+)?json\Z")


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request of the chain."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    content: bytes | None
    is_private: bool = False
    """The URL was given with a secret in it; normalised, that may no longer look like the secret."""

    @property
    def host(self) -> str:
        host = f"[{self.url.host}]" if ":" in self.url.host else self.url.host
        return host if self.url.port is None else f"{host}:{self.url.port}"

    @property
    def shown(self) -> str:
        """The request without its query, which may be private and is long, and without a private path."""
        return f"{self.method} {self.url.scheme}://{self.host}{'/...' if self.is_private else self.url.path}"


class HttpExchange:
    """A client and what guards it. Cookies, proxies and credentials of the environment are never used."""

    def __init__(self, allowance: HostAllowance, resolver: Resolver | None, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._client = httpx.AsyncClient(
            transport=GuardedTransport(allowance, resolver or SystemResolver()),
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            timeout=None,  # noqa: S113 - the whole exchange has one limit, which counts redirects too
            trust_env=False,
        )
        self._users = 0
        self._closing = False

    async def perform(self, parameters: HttpClientParameters, environment: ToolEnvironment) -> dict[str, Json]:
        """{status, headers, body}. Raises AttemptError with the kind of failure."""
        hop = _first_hop(parameters, environment)
        try:
            with anyio.fail_after(parameters.timeout_s):
                async with self._in_use():
                    return await self._follow(hop, parameters, environment)
        except TimeoutError:
            raise AttemptError(f"{hop.shown} took longer than {parameters.timeout_s:g} s.", kind="timeout") from None

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[None]:
        """Whoever ends last after aclose closes the client, so that no call is cut off."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closing:
                await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, once no call uses them."""
        self._closing = True
        if self._users == 0:
            with anyio.CancelScope(shield=True):
                await self._client.aclose()

    async def _follow(
        self, hop: _Hop, parameters: HttpClientParameters, environment: ToolEnvironment
    ) -> dict[str, Json]:
        _check_secrets(hop, environment)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                request = self._client.build_request(
                    hop.method,
                    hop.url,
                    headers=[(name.encode(), value.encode()) for name, value in hop.headers.items()],
                    content=hop.content,
                )
                response = await self._client.send(request, stream=True)
                try:
                    following = _next_hop(hop, response, environment)
                    if following is None:
                        return await self._read(hop, response, parameters, environment.clock)
                finally:
                    await response.aclose()
            except httpx.TransportError as error:
                raise _transport_failure(hop, error) from None
            except (httpx.InvalidURL, UnicodeError) as error:
                raise AttemptError(f"{hop.shown}: {error}.", kind="invalid") from None
            hop = following
        raise AttemptError(f"{hop.shown}: redirected more than {MAX_REDIRECTS} times.", kind="invalid")

    async def _read(
        self, hop: _Hop, response: httpx.Response, parameters: HttpClientParameters, clock: Clock
    ) -> dict[str, Json]:
        status = response.status_code
        if status >= 400 and status not in parameters.accept_status:
            raise await _status_failure(hop, response, clock)
        content = await _content(response, self._max_bytes)
        if content is None:
            raise AttemptError(
                f"{hop.shown} answered with more than {self._max_bytes} bytes (max_response_bytes in the settings).",
                kind="invalid",
            )
        if len(content) > _INLINE_BYTES:
            body = await anyio.to_thread.run_sync(
                _body, hop, response, content, parameters.format, abandon_on_cancel=True
            )
        else:
            body = _body(hop, response, content, parameters.format)
        return {"status": status, "headers": _headers(response), "body": body}


def _first_hop(parameters: HttpClientParameters, environment: ToolEnvironment) -> _Hop:
    headers = dict(parameters.headers)
    names = {name.lower() for name in headers}
    content = None
    if "json_body" in parameters.model_fields_set:
        content = dump_json(parameters.json_body).encode()
        if "content-type" not in names:
            headers["content-type"] = "application/json"
    elif parameters.body is not None:
        content = parameters.body.encode()
        if "content-type" not in names:
            headers["content-type"] = "text/plain; charset=utf-8"
    headers["accept-encoding"] = "gzip"
    if "user-agent" not in names:
        headers["user-agent"] = "contexten-flow"
    try:
        url = httpx.URL(parameters.url)
        if parameters.params:
            url = url.copy_merge_params(parameters.params)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        reason = str(error).partition(":")[0].rstrip(".")  # what follows repeats a part of the URL
        raise AttemptError(f"parameters/url is not a URL: {reason}.", kind="invalid") from None
    if environment.secret_names and _AUTHORITY_WITH_SECRET.match(environment.vault.mask(parameters.url)):
        raise _secret_in_host("parameters/url")  # one with / or ? in it is in the host by a part only
    _check_url(url, "parameters/url", environment)
    is_private = bool(environment.vault.found_in(parameters.url))
    return _Hop(parameters.method, url.copy_with(fragment=None), headers, content, is_private)


def _check_url(url: httpx.URL, what: str, environment: ToolEnvironment) -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise AttemptError(f"{what}: only absolute http and https URLs can be fetched.", kind="invalid")
    if url.port is not None and not 0 < url.port < 65536:
        raise AttemptError(f"{what}: {url.port} is no port; ports go from 1 to 65535.", kind="invalid")
    if url.userinfo:
        raise AttemptError(
            f"{what} holds a user name or password; give them as an Authorization header from a secret.", kind="invalid"
        )
    # Only where the task uses secrets: the hosts of others may hold a weak one, such as "test", by chance.
    if environment.secret_names and any(
        environment.vault.found_in(host) for host in (url.host, unquote(url.host), url.raw_host.decode("ascii"))
    ):
        raise _secret_in_host(what)


def _secret_in_host(what: str) -> AttemptError:
    """Without the host: hosts are looked up, logged and lower-cased on the way."""
    return AttemptError(
        f"{what} holds a secret in its host, where whoever resolves the name would see it; give it as a header.",
        kind="invalid",
    )


def _check_secrets(hop: _Hop, environment: ToolEnvironment) -> None:
    for name in sorted(environment.secret_names):
        if not environment.vault.allowed(name, tool="http_client", host=_host_with_port(hop.url)):
            raise AttemptError(
                f"The secret {name} may not be sent to {hop.host}: the settings do not grant it to that host.",
                kind="invalid",
            )


def _host_with_port(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host.rstrip('.')}:{_port(url)}"


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _next_hop(hop: _Hop, response: httpx.Response, environment: ToolEnvironment) -> _Hop | None:
    """The request that a redirect asks for, without what its host must not have; None where it is no redirect."""
    location = response.headers.get("location")
    if response.status_code not in _REDIRECTS or location is None:
        return None
    try:
        url = hop.url.join(location).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise AttemptError(f"{hop.shown} redirects to what is not a URL.", kind="invalid") from None
    _check_url(url, f"{hop.shown}: the redirect", environment)
    method, headers, content = hop.method, dict(hop.headers), hop.content
    if (response.status_code == 303 and method != "HEAD") or (response.status_code in (301, 302) and method == "POST"):
        method, content = "GET", None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    following = _Hop(method, url, headers, content, hop.is_private)
    if _is_same_place(hop.url, url):
        return following
    return _without_secrets(following, environment)


def _is_same_place(before: httpx.URL, after: httpx.URL) -> bool:
    if before.host != after.host:
        return False
    if before.scheme == after.scheme:
        return _port(before) == _port(after)
    return (before.scheme, _port(before), after.scheme, _port(after)) == ("http", 80, "https", 443)


def _without_secrets(hop: _Hop, environment: ToolEnvironment) -> _Hop:
    """The request as another host may have it: credentials are dropped; a secret in the URL or the body, unless the
    settings name that host for it, is refused."""
    vault = environment.vault
    headers = {
        name: value
        for name, value in hop.headers.items()
        if name.lower() not in _CREDENTIALS and not vault.found_in(value)
    }
    sent = vault.found_in(str(hop.url))
    if hop.content is not None:
        # Not all forms can be found in a body: all secrets that were used may be in there.
        sent |= vault.found_in(hop.content.decode("utf-8", "replace")) | environment.secret_names
    for name in sorted(sent):
        if not vault.granted_to_host(name, _host_with_port(hop.url)):
            raise AttemptError(
                f"{hop.shown}: the redirect would send the secret {name} to another host, which the settings do not "
                "name for it.",
                kind="invalid",
            )
    return replace(hop, headers=headers)


def _transport_failure(hop: _Hop, error: httpx.TransportError) -> AttemptError:
    if isinstance(error, httpx.TimeoutException):
        return AttemptError(f"{hop.shown}: no answer in time.", kind="timeout")
    if isinstance(error, httpx.LocalProtocolError):
        return AttemptError(f"{hop.shown}: the request is not valid HTTP: {error}.", kind="invalid")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _SHORTAGES:
            return AttemptError(f"{hop.shown}: the system has no free file or memory for it.", kind="resource")
        cause = cause.__cause__ or cause.__context__
    reason = str(error) or type(error).__name__
    return AttemptError(f"{hop.shown}: {mend_text(reason)}.", kind="network")


async def _status_failure(hop: _Hop, response: httpx.Response, clock: Clock) -> AttemptError:
    status = response.status_code
    content = await _content(response, _ERROR_BODY_BYTES, cut=True) or b""
    text = decode_text(content, response.charset_encoding or "utf-8")[:_ERROR_BODY_CHARS].strip()
    details: dict[str, Any] = {"status": status}
    if text:
        details["body"] = text
    retry_after_s = retry_after(response.headers.get("retry-after"), clock)
    if retry_after_s is not None:
        details["retry_after_s"] = retry_after_s
    phrase = f"{status} {response.reason_phrase}".strip()
    tail = f": {text}" if text else "."
    return AttemptError(f"{hop.shown} answered {phrase}{tail}", kind=kind_of_status(status), details=details)


async def _content(response: httpx.Response, max_bytes: int, *, cut: bool = False) -> bytes | None:
    """The body, unpacked; None where it is longer (with `cut`, its beginning). Never holds much more than that, however
    well it is packed."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    unpack = _Gunzip() if encoding in ("gzip", "x-gzip") else None
    if unpack is None and encoding not in ("", "identity"):
        if cut:
            return b""
        raise AttemptError(
            f"The server answered in the content encoding {encoding[:40]!r}, which was not asked for.", kind="network"
        )
    content = bytearray()
    async for raw in response.aiter_raw():
        room = max_bytes + 1 - len(content)
        content += raw[:room] if unpack is None else unpack(raw, room)
        if len(content) > max_bytes:
            return bytes(content[:max_bytes]) if cut else None
    return bytes(content)


class _Gunzip:
    """Unpacks gzip, at most so many bytes at a time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def __call__(self, packed: bytes, max_bytes: int) -> bytes:
        unpacked = bytearray()
        try:
            while packed and len(unpacked) < max_bytes:
                unpacked += self._member.decompress(packed, max_bytes - len(unpacked))
                packed = self._member.unconsumed_tail
                if self._member.eof:
                    packed = self._member.unused_data
                    if packed:
                        self._member = zlib.decompressobj(wbits=31)
        except zlib.error:
            raise AttemptError("The response's body is damaged: it is not gzip as announced.", kind="network") from None
        return bytes(unpacked)


def _body(hop: _Hop, response: httpx.Response, content: bytes, format: Format) -> Json:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    says_json = _JSON_TYPE.match(content_type) is not None
    if format == "auto":
        format = "json" if says_json else "text"
        if not content:
            return None if says_json else ""
    if format == "json" and not content and (hop.method == "HEAD" or response.status_code in (204, 205, 304)):
        return None
    charset = response.charset_encoding or "utf-8"
    try:
        return decode(content, format, charset="utf-8" if format == "json" and says_json else charset)
    except FormatError as error:
        raise AttemptError(
            f"{hop.shown} answered {response.status_code} with a body that is {error}. With format text it is taken as "
            "it is.",
            kind="invalid",
        ) from None


def _headers(response: httpx.Response) -> dict[str, str]:
    """By lower-case name; repeated ones joined with commas, as HTTP has it."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers.raw:
        name, value = decode_text(raw_name).lower(), _header_text(raw_value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _header_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
