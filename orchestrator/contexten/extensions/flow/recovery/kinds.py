"""What kind of failure an exception is: the word that retries, recovery strategies and the journal use."""

from __future__ import annotations

import asyncio
import builtins
import errno
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from functools import cache

import pydantic

from ..errors import FlowError

TIMEOUT = "timeout"
AGENT_FAILURE = "agent_failure"
RESOURCE = "resource"
NETWORK = "network"
RATE_LIMIT = "rate_limit"
INVALID = "invalid"
INTERRUPTED = "interrupted"
VETOED = "vetoed"
UNKNOWN = "unknown"

BUILTIN_KINDS = frozenset({TIMEOUT, AGENT_FAILURE, RESOURCE, NETWORK, RATE_LIMIT, INVALID, INTERRUPTED, UNKNOWN})
"""The kinds that the format documents; any other is an exception's own."""

NEVER_RETRIED = frozenset({INVALID})
"""Kinds that another attempt cannot mend."""

_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_RESOURCE_ERRNOS = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EDQUOT, errno.ENOBUFS})
_NETWORK_ERRNOS = frozenset(
    {
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,
        errno.ENOTCONN,
    }
)

# Recognised by name, so that no HTTP library is imported for it.
_HTTP_LIBRARIES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests", "urllib3"})
_HTTP_KINDS = {
    "TimeoutException": TIMEOUT,
    "Timeout": TIMEOUT,
    "TimeoutError": TIMEOUT,
    "InvalidURL": INVALID,
    "UnsupportedProtocol": INVALID,
    "TransportError": NETWORK,
    "NetworkError": NETWORK,
    "ProtocolError": NETWORK,
    "ClientConnectionError": NETWORK,
    "ConnectionError": NETWORK,
    "StreamError": NETWORK,
}


def classify(exc: BaseException, rules: Callable[[BaseException], str | None] | None = None) -> str:
    """The kind of a failure.

    What `rules` answer, where they answer anything, goes before all else. Then an exception's own `kind` (a
    lower-case word) wins; then come the kinds that its class tells; plain Exception and RuntimeError, which tell
    nothing, are an agent's failure; any other class is its name in snake case (`CustomError` is custom_error). A
    group counts as its members where they agree.
    """
    if rules is not None and (told := rules(exc)) is not None:
        return told
    try:
        own = getattr(exc, "kind", None)
    except Exception:  # noqa: BLE001 - a property of a stranger's exception may raise anything
        own = None
    if isinstance(own, str) and _KIND.fullmatch(own):
        return str(own)
    if isinstance(exc, BaseExceptionGroup):
        kinds = {classify(member, rules) for member in exc.exceptions}
        return kinds.pop() if len(kinds) == 1 else AGENT_FAILURE
    for recognise in _RECOGNISERS:
        kind = recognise(exc)
        if kind is not None:
            return kind
    return _snake_case(type(exc).__name__)


def _kind_of_builtin(exc: BaseException) -> str | None:
    if isinstance(exc, asyncio.CancelledError):
        return INTERRUPTED
    if type(exc) in (Exception, RuntimeError) or not isinstance(exc, Exception):
        return AGENT_FAILURE
    if isinstance(exc, TimeoutError | subprocess.TimeoutExpired):
        return TIMEOUT
    if isinstance(exc, MemoryError):
        return RESOURCE
    if isinstance(exc, pydantic.ValidationError):
        return INVALID
    return None


def _kind_of_os_error(exc: BaseException) -> str | None:
    if not isinstance(exc, OSError):
        return None
    if isinstance(exc, ConnectionError | socket.gaierror | socket.herror | ssl.SSLError):
        return NETWORK
    if exc.errno in _RESOURCE_ERRNOS:
        return RESOURCE
    return NETWORK if exc.errno in _NETWORK_ERRNOS else None


def _kind_of_http_error(exc: BaseException) -> str | None:
    for cls in type(exc).__mro__:
        if cls.__module__.partition(".")[0] not in _HTTP_LIBRARIES:
            continue
        if cls.__name__ == "HTTPStatusError":
            status = getattr(getattr(exc, "response", None), "status_code", None)
            return kind_of_status(status) if isinstance(status, int) else NETWORK
        if cls.__name__ in _HTTP_KINDS:
            return _HTTP_KINDS[cls.__name__]
    return None


def _kind_of_flow_error(exc: BaseException) -> str | None:
    return INVALID if isinstance(exc, FlowError) and exc.code.startswith("invalid") else None


_RECOGNISERS: tuple[Callable[[BaseException], str | None], ...] = (
    _kind_of_builtin,
    _kind_of_os_error,
    _kind_of_http_error,
    _kind_of_flow_error,
)


def kind_of_status(status: int) -> str:
    """The kind of an HTTP answer that counts as a failure (a status of 400 or more)."""
    if status in (408, 504):
        return TIMEOUT
    if status == 429:
        return RATE_LIMIT
    return NETWORK if status >= 500 else INVALID


@cache
def known_kinds() -> frozenset[str]:
    """The kinds that failures have without anybody's rules: built in, and those of the exceptions of Python and of this
    package. Exceptions of others may have any further one."""
    errors = [found for found in vars(builtins).values() if isinstance(found, type) and issubclass(found, Exception)]
    plain = (cls for cls in (*errors, *_family(FlowError)) if not issubclass(cls, BaseExceptionGroup))
    return BUILTIN_KINDS | {VETOED} | {classify(cls.__new__(cls)) for cls in plain}


def _family(cls: type[Exception]) -> Iterator[type[Exception]]:
    yield cls
    for member in cls.__subclasses__():
        yield from _family(member)


def check_kind(value: object) -> None:
    """Raise ValueError, with what may be meant, where no failure can have it as its kind."""
    if not isinstance(value, str) or not _KIND.fullmatch(value):
        meant = _snake_case(str(value))
        example = "custom_error" if meant == UNKNOWN else meant
        raise ValueError(f"{value!r} is no kind of failure: kinds are words in lower case, such as {example}")


def _snake_case(name: str) -> str:
    kind = _WORD_START.sub("_", name).lower().strip("_")[:64]
    return kind if _KIND.fullmatch(kind) else UNKNOWN
