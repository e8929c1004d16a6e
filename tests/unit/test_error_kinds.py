from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess

import httpx
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contexten.extensions.flow.errors import AttemptError, FlowTimeout, InvalidInputs, RunNotFound
from contexten.extensions.flow.recovery.kinds import BUILTIN_KINDS, NEVER_RETRIED, classify, kind_of_status


class CustomError(Exception):
    pass


class HTTPServerError(Exception):
    pass


class Own(Exception):
    kind = "quota_exceeded"


class OddKind(Exception):
    kind = "Not A Kind"


class NumberKind(Exception):
    kind = 5


class _Private(Exception):
    pass


class Überfluss(Exception):  # noqa: PLC2401 - a name that has no snake case of ours
    pass


class SlowError(CustomError, TimeoutError):
    pass


def _validation_error() -> Exception:
    class Model(pydantic.BaseModel):
        x: int

    try:
        Model.model_validate({})
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


REQUEST = httpx.Request("GET", "http://x.example")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AttemptError("x", kind="rate_limit"), "rate_limit"),
        (AttemptError("x", kind="my_own"), "my_own"),
        (AttemptError("x"), "unknown"),
        (Own(), "quota_exceeded"),
        (OddKind(), "odd_kind"),
        (NumberKind(), "number_kind"),
        (CustomError(), "custom_error"),
        (HTTPServerError(), "http_server_error"),
        (_Private(), "private"),
        (Überfluss(), "unknown"),
        (TimeoutError(), "timeout"),
        (SlowError(), "timeout"),
        (subprocess.TimeoutExpired("x", 1), "timeout"),
        (FlowTimeout("x"), "timeout"),
        (socket.timeout(), "timeout"),  # noqa: UP041 - the old name is still raised
        (OSError(errno.ETIMEDOUT, "x"), "timeout"),
        (ConnectionRefusedError(), "network"),
        (BrokenPipeError(), "network"),
        (socket.gaierror(-2, "x"), "network"),
        (ssl.SSLError("x"), "network"),
        (OSError(errno.EHOSTUNREACH, "x"), "network"),
        (OSError(errno.ENOSPC, "x"), "resource"),
        (OSError(errno.EMFILE, "x"), "resource"),
        (MemoryError(), "resource"),
        (_validation_error(), "invalid"),
        (InvalidInputs("x"), "invalid"),
        (RunNotFound("x"), "run_not_found"),
        (FileNotFoundError(), "file_not_found_error"),
        (PermissionError(), "permission_error"),
        (ValueError(), "value_error"),
        (KeyError("x"), "key_error"),
        (Exception("x"), "agent_failure"),
        (RuntimeError("x"), "agent_failure"),
        (SystemExit(1), "agent_failure"),
        (asyncio.CancelledError(), "interrupted"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ConnectError("x"), "network"),
        (httpx.RemoteProtocolError("x"), "network"),
        (httpx.InvalidURL("x"), "invalid"),
        (httpx.UnsupportedProtocol("x"), "invalid"),
        (httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(429)), "rate_limit"),
        (httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(502)), "network"),
        (ExceptionGroup("x", [TimeoutError(), ExceptionGroup("y", [SlowError()])]), "timeout"),
        (ExceptionGroup("x", [TimeoutError(), ValueError()]), "agent_failure"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_exception_has_the_kind_that_it_tells(error: BaseException, kind: str) -> None:
    assert classify(error) == kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid"), (404, "invalid"), (408, "timeout"), (429, "rate_limit"), (500, "network"), (504, "timeout")],
)
def test_an_http_status_has_a_kind(status: int, kind: str) -> None:
    assert kind_of_status(status) == kind


def test_only_what_is_invalid_is_never_retried() -> None:
    assert {"invalid"} == NEVER_RETRIED
    assert NEVER_RETRIED <= BUILTIN_KINDS


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,100}", fullmatch=True))
def test_every_class_name_becomes_a_word_that_settings_can_name(name: str) -> None:
    kind = classify(type(name, (Exception,), {})())
    assert kind.islower()
    assert kind.isidentifier()
    assert len(kind) <= 64
