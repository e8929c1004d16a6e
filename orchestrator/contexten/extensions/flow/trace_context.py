"""The trace that a call belongs to. OpenTelemetry is asked only where a program of this process has loaded it."""

from __future__ import annotations

import sys
from typing import Any


def current_trace() -> str | None:
    """The span that is current, as a W3C `traceparent`: of a program that traces, or of an MCP client that named its
    own in `_meta`. None where there is none."""
    span = _current()
    if span is None:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags) & 1:02x}"


def current_trace_id() -> str | None:
    """The id of the trace of the span that is current, in hex."""
    span = _current()
    return None if span is None else f"{span.trace_id:032x}"


def is_given(provider: object) -> bool:
    """Whether somebody set that provider of tracers or meters: those of the API alone record nothing."""
    is_api = type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
    return provider is not None and not is_api


def _current() -> Any:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None
