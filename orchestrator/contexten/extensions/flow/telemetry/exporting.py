"""Sending traces and metrics where the standard settings of OpenTelemetry, the variables OTEL_*, say.

For processes of this program. A Python program that uses the library sets providers of its own, and is told by them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ..outside.daemon_thread import call_in_daemon_thread
from ..trace_context import is_given

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

logger = logging.getLogger(__name__)

FLUSH_S = 2.0  # for what is left when the process ends: a collector that does not answer holds nobody up longer
TIMEOUT_MS = 5000  # of one request to the collector, where OTEL_EXPORTER_OTLP_TIMEOUT says no other

_PROTOCOLS = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)
_INSTALL = "pip install 'contexten-flow[otel]'"


def exporter_of(signal: str) -> str | None:
    """The exporter of `traces` or `metrics` that the environment asks for: otlp, console, or None.

    It is on only where an endpoint or an exporter is named, never by default.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
    if named in ("otlp", "console"):
        return named
    if named and named != "none":
        logger.warning("OTEL_%s_EXPORTER=%s is not known here; use otlp, console or none", signal.upper(), named)
    if named:
        return None
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return "otlp" if any(os.environ.get(name) for name in endpoints) else None


@asynccontextmanager
async def exporting() -> AsyncIterator[None]:
    """Export what is traced and measured inside, as the environment asks; nothing where it asks for nothing, or where
    the program has set providers of its own. At the end what is left is sent, in FLUSH_S at most. Never raises for
    want of a collector or of the library."""
    traces, metrics = exporter_of("traces"), exporter_of("metrics")
    closers: list[Callable[[], Any]] = []
    if traces or metrics:
        try:
            closers = await anyio.to_thread.run_sync(_set_up, traces, metrics)  # importing it takes a while
        except ModuleNotFoundError as error:
            logger.warning("OTEL_* asks for traces or metrics, and %s is not installed: %s", error.name, _INSTALL)
        except Exception:  # what the environment says may be nonsense; the server works without
            logger.exception("traces and metrics are not exported")
    try:
        yield
    finally:
        if closers:
            await _close(closers)


def _set_up(traces: str | None, metrics: str | None) -> list[Callable[[], Any]]:
    from opentelemetry import metrics as metrics_api
    from opentelemetry import trace as trace_api
    from opentelemetry.sdk.resources import Resource

    for name in _PROTOCOLS:
        if os.environ.get(name, "http/protobuf") != "http/protobuf":
            logger.warning("%s=%s is not spoken here; http/protobuf is", name, os.environ[name])
    try:
        program = version("contexten-flow")
    except PackageNotFoundError:
        program = "0"
    about = {"service.version": program}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        about["service.name"] = "contexten-flow"
    resource = Resource.create(about)
    closers: list[Callable[[], Any]] = []
    if traces and not is_given(trace_api.get_tracer_provider()):
        closers.append(_trace(traces, resource))
    if metrics and not is_given(metrics_api.get_meter_provider()):
        closers.append(_measure(metrics, resource))
    return closers


def _trace(exporter: str, resource: Resource) -> Callable[[], Any]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if exporter == "console":
        sink: SpanExporter = ConsoleSpanExporter(out=sys.stderr)  # standard output may be MCP's
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        sink = OTLPSpanExporter(**_patience("TRACES"))
    provider.add_span_processor(BatchSpanProcessor(sink))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _measure(exporter: str, resource: Resource) -> Callable[[], Any]:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        MetricExporter,
        PeriodicExportingMetricReader,
    )

    if exporter == "console":
        sink: MetricExporter = ConsoleMetricExporter(out=sys.stderr)
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        sink = OTLPMetricExporter(**_patience("METRICS"))
    provider = MeterProvider([PeriodicExportingMetricReader(sink)], resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _patience(signal: str) -> dict[str, Any]:
    """Where nobody says how long to wait for the collector, less than its library would."""
    names = ("OTEL_EXPORTER_OTLP_TIMEOUT", f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT")
    return {} if any(os.environ.get(name) for name in names) else {"timeout": TIMEOUT_MS / 1000}


async def _close(closers: list[Callable[[], Any]]) -> None:
    limiter = anyio.CapacityLimiter(len(closers))

    async def close(closer: Callable[[], Any]) -> None:
        try:
            await call_in_daemon_thread(closer, name="telemetry", limiter=limiter)
        except Exception:  # nobody is held up by what does not arrive
            logger.exception("the last traces or metrics could not be sent")

    with anyio.CancelScope(shield=True), anyio.move_on_after(FLUSH_S) as scope:
        async with anyio.create_task_group() as group:
            for closer in closers:
                group.start_soon(close, closer)
    if scope.cancelled_caught:
        logger.warning("the collector did not take the last traces and metrics within %g s", FLUSH_S)
