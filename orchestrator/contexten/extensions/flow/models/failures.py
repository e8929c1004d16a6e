"""What went wrong with a model, as failures of attempts, each of its kind.

Providers are told apart by what their errors carry (a status, a response), and by the names of their classes, so that
one table serves the libraries of all, installed or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ..clock import Clock
from ..errors import AttemptError
from ..outside.retry_after import retry_after
from ..recovery.kinds import AGENT_FAILURE, INVALID, NETWORK, RATE_LIMIT, RESOURCE, TIMEOUT, classify, kind_of_status

MAX_TEXT = 600  # characters of what a provider says

_BY_CLASS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ContextWindowOverflowException": (
            INVALID,
            "what it is given is longer than its context: give it less, or take a model with a longer one",
        ),
        "MaxTokensReachedException": (AGENT_FAILURE, "its answer was cut at the most that it says in one go"),
        "ModelThrottledException": (RATE_LIMIT, "its provider lets no more calls through now"),
        "ConcurrencyException": (RESOURCE, "the agent is at work for somebody else"),
        "NoCredentialsError": (INVALID, "no credentials were found"),
        "PartialCredentialsError": (INVALID, "its credentials are incomplete"),
        "APITimeoutError": (TIMEOUT, "it did not answer in time"),
        "ReadTimeoutError": (TIMEOUT, "it did not answer in time"),
        "ReadTimeout": (TIMEOUT, "it did not answer in time"),
        "ConnectTimeout": (NETWORK, "its server cannot be reached"),
        "ConnectTimeoutError": (NETWORK, "its server cannot be reached"),
        "EndpointConnectionError": (NETWORK, "its server cannot be reached"),
        "BrokenAnswer": (NETWORK, "the connection broke off in the middle of its answer"),
        "RemoteProtocolError": (NETWORK, "the connection broke off in the middle of its answer"),
        "IncompleteRead": (NETWORK, "the connection broke off in the middle of its answer"),
        "APIConnectionError": (NETWORK, "its server cannot be reached"),
        "ConnectionError": (NETWORK, "its server cannot be reached"),
        "ConnectError": (NETWORK, "its server cannot be reached"),
        "APIError": (NETWORK, "its server failed in the middle of its answer"),
    }
)
"""By the name of an exception's class or of one that it derives from; the nearest counts."""

_NO_ANSWER = "unexpected response type"  # of a body that is none, such as a page of a proxy
_SPENT = "insufficient_quota"  # 429 too, and no waiting mends it
_OVERFLOWS = ("context_length_exceeded", "context length", "exceeds the available context", "too many tokens")


def failure_of(
    error: BaseException,
    clock: Clock,
    *,
    model: str | None = None,
    key_variable: str | None = None,
    address: str | None = None,
    mask: Callable[[str], str] = str,
) -> AttemptError:
    """The failure to tell. `address` is where the model is served, where that is not its provider's own place; `mask`
    takes secrets out of what a provider says."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, AttemptError):
            return cause
    subject = f"The model {model}" if model else "The model"
    kind, told, by = _find(causes)
    status = next((status for cause in causes if (status := _status(cause)) is not None), None)
    details: dict[str, Any] = {} if status is None else {"status": status}
    if status is not None and kind in {"", RATE_LIMIT, NETWORK}:
        kind, told = _of_status(status, " ".join(map(str, causes)), key_variable)
    if kind == RATE_LIMIT or (status or 0) >= 500:
        headers = [_header(cause, "retry-after") for cause in causes]
        wait_s = retry_after(next((header for header in headers if header), None), clock)
        if wait_s is not None:
            details["retry_after_s"] = wait_s
    if not kind and _NO_ANSWER in str(causes[-1]).casefold():
        kind, told, by = NETWORK, "its server answered what is no answer of a model", causes[-1]
    if not kind:
        kind, told, by = classify(causes[-1]), "it failed", causes[-1]
    if kind == INVALID and key_variable and "redentials" in told:
        told += f"; set {key_variable} in the server's environment"
    if kind == NETWORK and address:
        subject += f" at {address}"
    text = mask(str(by if by is not None else causes[-1])).strip()[:MAX_TEXT]
    message = f"{subject}: {told}" + (f" ({type(by).__name__}: {text})" if text else "") + "."
    return AttemptError(message, kind=kind, details=details or None)


def _find(causes: list[BaseException]) -> tuple[str, str, BaseException | None]:
    """The kind that a class tells, and who told it. What Strands says of a fault goes before what it wraps."""
    for cause in causes:
        for cls in type(cause).__mro__:
            if cls.__name__ in _BY_CLASS:
                return *_BY_CLASS[cls.__name__], _told_best(causes, cause)
    return "", "", _told_best(causes, None)


def _told_best(causes: list[BaseException], found: BaseException | None) -> BaseException | None:
    return next((cause for cause in causes if _status(cause) is not None), found)


def _of_status(status: int, text: str, key_variable: str | None) -> tuple[str, str]:
    folded = text.casefold()
    if status in (401, 403):
        what = f": set {key_variable} in the server's environment" if key_variable else ""
        return INVALID, f"its provider refuses the key{what}"
    if _SPENT in folded:
        return INVALID, "its provider says that the account's quota is spent"
    if status == 404:
        return INVALID, "its provider knows no such model or address"
    if status in (400, 413) and any(phrase in folded for phrase in _OVERFLOWS):
        return _BY_CLASS["ContextWindowOverflowException"]
    kind = kind_of_status(status)
    told = {
        TIMEOUT: "it did not answer in time",
        RATE_LIMIT: "its provider lets no more calls through now",
        NETWORK: f"its server failed with status {status}",
    }
    return kind, told.get(kind, f"its provider refuses the request with status {status}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, from the outside in."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        cause = pending.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            pending.extend(cause.exceptions)
        original = getattr(cause, "original_exception", None)
        pending.append(original if isinstance(original, BaseException) else None)
        pending.append(cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__))


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),  # google.genai
        _in(response, "ResponseMetadata", "HTTPStatusCode"),  # botocore
    ):
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _header(error: BaseException, name: str) -> str | None:
    response = getattr(error, "response", None)
    headers = (
        getattr(response, "headers", None)
        or getattr(error, "headers", None)  # mistralai
        or _in(response, "ResponseMetadata", "HTTPHeaders")
    )
    value = headers.get(name) if hasattr(headers, "get") else None
    return value if isinstance(value, str) else None


def _in(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data
