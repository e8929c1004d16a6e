"""What the standard variables of OpenTelemetry switch on."""

from __future__ import annotations

import logging
import os

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from contexten.extensions.flow.telemetry.exporting import exporter_of, exporting
from contexten.extensions.flow.trace_context import current_trace, current_trace_id

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("given", "traces", "metrics"),
    [
        ({}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp", "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, "otlp", None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, "otlp", None),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console", None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None, None),
    ],
)
def test_nothing_is_exported_but_what_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], traces: str | None, metrics: str | None
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert (exporter_of("traces"), exporter_of("metrics")) == (traces, metrics)


def test_an_exporter_that_is_not_known_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with caplog.at_level(logging.WARNING):
        assert exporter_of("traces") is None
    assert "OTEL_TRACES_EXPORTER=zipkin" in caplog.text


async def test_a_provider_that_the_program_set_stays(monkeypatch: pytest.MonkeyPatch, tracers: TracerProvider) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    async with exporting():
        assert trace.get_tracer_provider() is tracers


def test_outside_of_a_trace_there_is_none() -> None:
    assert (current_trace(), current_trace_id()) == (None, None)


def test_the_trace_is_told_as_a_traceparent() -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(0xA, 0xB, is_remote=True, trace_flags=trace.TraceFlags(1)))
    with trace.use_span(span):
        assert current_trace() == f"00-{0xA:032x}-{0xB:016x}-01"
        assert current_trace_id() == f"{0xA:032x}"
