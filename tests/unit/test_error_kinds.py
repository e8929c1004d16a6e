from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess
from typing import Any

import httpx
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contexten.extensions.flow.errors import AttemptError, FlowTimeout, InvalidInputs, RunNotFound
from contexten.extensions.flow.recovery.error_kinds import ErrorKinds
from contexten.extensions.flow.recovery.kinds import NEVER_RETRIED, classify, kind_of_status


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


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,100}", fullmatch=True))
def test_every_class_name_becomes_a_word_that_settings_can_name(name: str) -> None:
    kind = classify(type(name, (Exception,), {})())
    assert kind.islower()
    assert kind.isidentifier()
    assert len(kind) <= 64


class Sub(CustomError):
    pass


class _Response:
    status_code = 423


class Answered(Exception):
    response = _Response()


class Hostile(Exception):
    @property
    def response(self) -> object:
        raise ValueError


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (CustomError, CustomError()),
        (CustomError, Sub()),
        ("CustomError", Sub()),
        (f"{__name__}.CustomError", CustomError()),
        ("builtins.OSError", FileNotFoundError()),
        ("http:423", AttemptError("x", kind="invalid", details={"status": 423})),
        ("http:423", Answered()),
        ("http:502", httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(502))),
        ("exit:75", AttemptError("x", kind="agent_failure", details={"exit_code": 75})),
        ("exit:-9", AttemptError("x", kind="agent_failure", details={"exit_code": -9})),
        ("exit:75", subprocess.CalledProcessError(75, "x")),
        ("AttemptError", AttemptError("x", kind="invalid")),
        (CustomError, ExceptionGroup("x", [CustomError(), Sub()])),
        (ExceptionGroup, ExceptionGroup("x", [CustomError(), ValueError()])),
    ],
    ids=str,
)
def test_a_rule_of_the_user_goes_before_all_else(rule: type[BaseException] | str, error: BaseException) -> None:
    assert ErrorKinds({rule: "my_own"}).classify(error) == "my_own"


@pytest.mark.parametrize(
    ("rule", "error", "kind"),
    [
        (Sub, CustomError(), "custom_error"),
        ("other.module.CustomError", CustomError(), "custom_error"),
        ("http:423", AttemptError("x", kind="invalid", details={"status": 404}), "invalid"),
        ("http:423", AttemptError("x", kind="invalid"), "invalid"),
        ("http:423", Hostile(), "hostile"),
        ("exit:75", AttemptError("x", kind="agent_failure", details={"exit_code": 1}), "agent_failure"),
        ("exit:75", AttemptError("x", kind="invalid", details={"status": 75}), "invalid"),
        (CustomError, ExceptionGroup("x", [CustomError(), TimeoutError()]), "agent_failure"),
    ],
    ids=str,
)
def test_an_error_that_no_rule_fits_keeps_its_kind(
    rule: type[BaseException] | str, error: BaseException, kind: str
) -> None:
    assert ErrorKinds({rule: "my_own"}).classify(error) == kind
    assert ErrorKinds().classify(error) == kind


def test_the_first_rule_that_fits_counts_and_earlier_mappings_go_first() -> None:
    assert ErrorKinds({Sub: "one", CustomError: "two"}).classify(Sub()) == "one"
    assert ErrorKinds({CustomError: "two", Sub: "one"}).classify(Sub()) == "two"
    assert ErrorKinds({"Sub": "executor"}, {"Sub": "settings"}).classify(Sub()) == "executor"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"MyError": "Network"}, "'MyError': 'Network' is no kind of failure: .* such as network"),
        ({CustomError: 5}, "CustomError: 5 is no kind of failure: .* such as custom_error"),
        ({"http:200": "network"}, "'http:200': only statuses from 400 to 599 are failures"),
        ({"http:abc": "network"}, "'http:abc' names no error: give an exception's name"),
        ({"exit:": "network"}, "'exit:' names no error"),
        ({"my error": "network"}, "'my error' names no error"),
        ({"": "network"}, "'' names no error"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(rules: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ErrorKinds(rules)


@pytest.mark.parametrize("key", [5, int, None])
def test_a_rule_is_for_an_exception_or_a_name(key: Any) -> None:
    with pytest.raises(TypeError, match="neither an exception class nor text"):
        ErrorKinds({key: "network"})
