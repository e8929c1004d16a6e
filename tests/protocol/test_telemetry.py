"""Traces and metrics of a server process, sent to a collector on loopback as OTLP over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

pytestmark = pytest.mark.anyio

VALUE = {
    "stages": [
        {
            "name": "main",
            "tasks": [{"name": "value", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}],
        }
    ]
}


class Collector:
    """Takes what is sent; a dead one takes requests and answers none of them."""

    def __init__(self) -> None:
        self.is_dead = False
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.metrics: set[str] = set()
        self._end = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.is_dead:
                    collector._end.wait(60)
                    return
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({entry.key: entry.value.string_value for entry in traced.resource.attributes})
                self.spans += [span for scope in traced.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics"
            measured = ExportMetricsServiceRequest.FromString(body).resource_metrics
            self.metrics |= {m.name for resource in measured for scope in resource.scope_metrics for m in scope.metrics}

    def named(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def close(self) -> None:
        self._end.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, and an environment that names it."""
    collector = Collector()
    threading.Thread(target=collector.server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    yield collector
    collector.close()


async def test_a_run_is_traced_below_the_request_and_the_trace_that_its_client_named(
    serve: Callable[..., Any], collector: Collector
) -> None:
    served = serve()
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    meta: Any = {"traceparent": f"00-{trace_id}-{parent_id}-01"}
    with anyio.fail_after(60):
        async with served.client("2026-07-28") as client:
            await client.call_tool("create_flow", {"workflow_def": VALUE, "flow_id": "some"})
            run = await client.call_tool("execute_flow", {"flow_id": "some", "wait_s": 20}, meta=meta)
            assert run.structured_content["state"] == "completed"
        served.process.terminate()
        assert await anyio.to_thread.run_sync(served.process.wait) == 0
    request, flow, task = map(collector.named, ("tools/call execute_flow", "flow some", "task value"))
    assert request.trace_id.hex() == flow.trace_id.hex() == task.trace_id.hex() == trace_id
    assert (request.parent_span_id.hex(), flow.parent_span_id) == (parent_id, request.span_id)
    assert collector.resources[0]["service.name"] == "contexten-flow"
    assert {"contexten.flow.runs", "contexten.flow.run.duration", "contexten.flow.slots"} <= collector.metrics


async def test_a_collector_that_never_answers_holds_nobody_up(serve: Callable[..., Any], collector: Collector) -> None:
    collector.is_dead = True
    served = serve()
    with anyio.fail_after(30):
        async with served.client("2026-07-28") as client:
            run = await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
            assert run.structured_content["state"] == "completed"
        served.process.terminate()
        assert await anyio.to_thread.run_sync(served.process.wait) == 0
    assert collector.spans == []


def run_alone(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "flow.json").write_text(json.dumps(VALUE), encoding="utf-8")
    command = [sys.executable, "-m", "contexten_server", "run", "flow.json", "--json"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_run_from_the_command_line_is_traced_too(
    environment: Callable[..., dict[str, str]], collector: Collector, tmp_path: Path
) -> None:
    done = run_alone(environment() | {"OTEL_SERVICE_NAME": "mine", "OTEL_METRICS_EXPORTER": "none"}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert collector.named("stage main").parent_span_id
    assert collector.resources[0]["service.name"] == "mine"
    assert collector.metrics == set()


def test_without_the_library_what_is_missing_is_said_and_all_else_works(
    environment: Callable[..., dict[str, str]], collector: Collector, tmp_path: Path
) -> None:
    absent = tmp_path / "absent" / "sitecustomize.py"
    absent.parent.mkdir()
    absent.write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n", encoding="utf-8")
    done = run_alone(environment(PYTHONPATH=str(absent.parent)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"contexten-flow\[otel\]", done.stderr)
    assert collector.spans == []
