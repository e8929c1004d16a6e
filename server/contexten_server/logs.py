"""How records of the log are written: a line of text for people, or a line of JSON for programs; secrets are masked."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contexten.extensions.flow.agents.secrets import SecretVault
    from contexten.extensions.flow.settings import FlowSettings

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""What every record has; all else was given as `extra`."""


_OURS = ("contexten", "contexten_server", "contexten_tools", "contexten_resources")

_MIN_TOKEN_CHARS = 4  # a shorter one occurs in ordinary text by chance


def log_to_stderr(settings: FlowSettings) -> None:
    """Log to standard error in the settings' format and with their secrets masked, unless the root logger has been set
    up already. Levels stay as they are."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter_of(settings))
        root.addHandler(handler)


def configure_logging(settings: FlowSettings) -> None:
    """Log to standard error as `log_to_stderr` does, at the settings' level. Libraries below us log warnings and errors
    only, whatever the level: they tell what passes through them, requests with their headers, statements with their
    values."""
    log_to_stderr(settings)
    root = logging.getLogger()
    root.setLevel(settings.log_level)
    root.setLevel(max(root.level, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(settings.log_level)


def formatter_of(settings: FlowSettings) -> logging.Formatter:
    """The formatter that the setting `log_format` names."""
    return JsonFormatter(settings) if settings.log_format == "json" else TextFormatter(settings)


class _Mask:
    """The secrets of the settings, as they are now, and the bearer tokens that the server accepts."""

    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings
        self._vault: SecretVault | None = None
        tokens = (token for token in settings.tokens if len(token) >= _MIN_TOKEN_CHARS)
        self._tokens = sorted(tokens, key=len, reverse=True)  # one may be the beginning of another

    def __call__(self, value: Any) -> Any:
        """Text, or an object of texts and numbers, with the secrets in it masked."""
        return self._without_tokens(self._without_secrets(value))

    def _without_tokens(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._without_tokens(part) for name, part in value.items()}
        if isinstance(value, str):
            for token in self._tokens:
                value = value.replace(token, "[bearer token]")
        return value

    def _without_secrets(self, value: Any) -> Any:
        if not self._settings.secrets:
            return value
        from contexten.extensions.flow.agents.secrets import SecretVault
        from contexten.extensions.flow.errors import AttemptError, InvalidArguments

        if self._vault is None:
            try:
                self._vault = SecretVault(self._settings)
            except InvalidArguments:  # no service opens with these settings, so that nothing uses a secret
                return value
        for name in self._vault.names:
            with suppress(AttemptError):  # it is not set
                self._vault.value(name)  # as it is now
        return self._vault.mask(value)


class TextFormatter(logging.Formatter):
    """A line with time, level, logger and message; a traceback follows on lines of its own."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._mask = _Mask(settings)

    def format(self, record: logging.LogRecord) -> str:
        return str(self._mask(super().format(record)))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; trace_id within a trace; exception, the traceback;
    and what was given as `extra`, such as action, run_id and task."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__()
        self._mask = _Mask(settings)

    def format(self, record: logging.LogRecord) -> str:
        from contexten.extensions.flow.trace_context import current_trace_id

        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace_id = current_trace_id()
        if trace_id is not None:
            told["trace_id"] = trace_id
        given = {name: value for name, value in record.__dict__.items() if name not in _OWN and name not in told}
        told |= {name: value if isinstance(value, int | float | None) else str(value) for name, value in given.items()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(self._mask(told), ensure_ascii=False, separators=(",", ":"), default=str)
