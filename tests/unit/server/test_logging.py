"""What reaches the log on standard error."""

import io
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from contexten.extensions.flow.settings import FlowSettings, SecretGrant
from contexten_server.running import configure_logging

BELOW = ("aiosqlite", "asyncio", "httpcore", "httpx", "httpx2", "mcp", "uvicorn")


Begin = Callable[[FlowSettings], io.StringIO]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Sets logging up as at the start of a process; answers what is written to standard error."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *BELOW)}
    handlers: list[logging.Handler] = []
    for name in BELOW:  # a library that another test used may have set up its own, as Prefect does for uvicorn
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)

    def configure(settings: FlowSettings) -> io.StringIO:
        handlers[:] = root.handlers
        root.handlers[:] = []
        heard = io.StringIO()
        monkeypatch.setattr(sys, "stderr", heard)
        configure_logging(settings)
        return heard

    yield configure
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
