"""What reaches the log on standard error."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from opentelemetry import trace

from contexten.extensions.flow.settings import FlowSettings, SecretGrant
from contexten_server.cli.conduct import load_settings
from contexten_server.logs import configure_logging

OURS = ("contexten", "contexten_server", "contexten_tools", "contexten_resources")
BELOW = ("aiosqlite", "asyncio", "httpcore", "httpx", "mcp", "some_library", "uvicorn")


Begin = Callable[..., io.StringIO]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Sets logging up as at the start of a process; answers what is written to standard error."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *OURS, *BELOW)}
    handlers: list[logging.Handler] = []
    for name in BELOW:  # a library that another test used may have set up its own, as Prefect does for uvicorn
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)

    def start(
        settings: FlowSettings | None = None,
        *,
        configure: Callable[[FlowSettings], None] = configure_logging,
        **given: Any,
    ) -> io.StringIO:
        handlers[:] = root.handlers
        root.handlers[:] = []
        heard = io.StringIO()
        monkeypatch.setattr(sys, "stderr", heard)
        configure(settings or load_settings(warn=False, **given))
        return heard

    yield start
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("name", BELOW)
def test_libraries_tell_no_requests_even_at_debug(begin: Begin, name: str) -> None:
    log = begin(FlowSettings(log_level="DEBUG"))
    logging.getLogger(name).info("HTTP Request: GET https://example.com/?key=swordfish")
    logging.getLogger(f"{name}.below").debug("send_request_headers")
    assert log.getvalue() == ""
    logging.getLogger(name).warning("something is wrong")
    assert "something is wrong" in log.getvalue()


def test_their_warnings_are_silent_where_only_errors_are_wanted(begin: Begin) -> None:
    log = begin(FlowSettings(log_level="ERROR"))
    logging.getLogger("mcp").warning("something is wrong")
    assert log.getvalue() == ""


def test_secrets_are_masked_in_messages_arguments_and_tracebacks(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "swordfish-9931")
    log = begin(FlowSettings(log_level="DEBUG", secrets=(SecretGrant(name="API_KEY"),)))
    logger = logging.getLogger("contexten.test")
    logger.debug("asked with %s", "swordfish-9931")
    try:
        raise RuntimeError("refused: swordfish-9931")
    except RuntimeError:
        logger.exception("failed")
    monkeypatch.setenv("API_KEY", "rotated-value-17")
    logger.info("now with rotated-value-17, before with swordfish-9931")
    said = log.getvalue()
    assert "Traceback" in said
    assert "swordfish" not in said
    assert "rotated" not in said
    assert said.count("[secret:API_KEY]") >= 4


def test_a_server_of_the_command_line_masks_secrets_at_debug_too(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "swordfish-9931")
    log = begin(log_level="DEBUG", log_format="json", secrets=(SecretGrant(name="API_KEY"),))
    logging.getLogger("contexten.test").debug("asked with swordfish-9931")
    (line,) = log.getvalue().splitlines()
    assert json.loads(line)["message"] == "asked with [secret:API_KEY]"


def test_warnings_of_a_command_are_masked_whatever_the_level(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "swordfish-9931")
    log = begin(configure=lambda _: None, log_level="ERROR", secrets=(SecretGrant(name="API_KEY"),))
    logging.getLogger("some_library").error("refused: swordfish-9931")
    assert "refused: [secret:API_KEY]" in log.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_bearer_tokens_are_masked(begin: Begin, log_format: Any) -> None:
    log = begin(FlowSettings(log_format=log_format, tokens=("swordfish", "swordfish-9931")))
    logging.getLogger("contexten.test").warning("sent swordfish-9931", extra={"header": "Bearer swordfish"})
    assert "sent [bearer token]" in log.getvalue()
    assert "swordfish" not in log.getvalue()
    assert "9931" not in log.getvalue()


def test_json_lines_tell_time_level_logger_message_and_what_was_added(begin: Begin) -> None:
    log = begin(FlowSettings(log_format="json"))
    logging.getLogger("contexten.test").warning(
        "lost %d\nlines", 2, extra={"action": "lost", "run_id": "run_1", "n": 3}
    )
    (line,) = log.getvalue().splitlines()
    told = json.loads(line)
    assert datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told == {
        "level": "WARNING",
        "logger": "contexten.test",
        "message": "lost 2\nlines",
        "action": "lost",
        "run_id": "run_1",
        "n": 3,
    }


def test_json_lines_within_a_trace_tell_its_id(begin: Begin) -> None:
    log = begin(FlowSettings(log_format="json"))
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1)))
    with trace.use_span(span):
        logging.getLogger("contexten.test").warning("inside")
    assert json.loads(log.getvalue())["trace_id"] == f"{0xABC:032x}"


def test_secrets_are_masked_in_json_lines_too(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", 'sword"fish-9931')
    log = begin(FlowSettings(log_format="json", secrets=(SecretGrant(name="API_KEY"),)))
    try:
        raise RuntimeError('refused: sword"fish-9931')
    except RuntimeError:
        logging.getLogger("contexten.test").exception(
            "asked with %s", 'sword"fish-9931', extra={"key": 'sword"fish-9931'}
        )
    told = json.loads(log.getvalue())
    assert told["key"] == "[secret:API_KEY]"
    assert "Traceback" in told["exception"]
    assert "fish" not in log.getvalue()
