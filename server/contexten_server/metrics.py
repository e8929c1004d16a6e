"""/metrics: figures in the formats of Prometheus and OpenMetrics.

Counters and histograms are of what this process has recorded since it was first asked: add those of all servers of a
database up. Gauges whose description says `database` are the same on each of them: take one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contexten.extensions.flow.clock import monotonic
from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.telemetry import Names, Readings
from contexten_server.assembly import program_version
from contexten_tools import App

FRESH_S = 1.0  # scrapes that follow each other faster get the same gauges

_PREFIX = "contexten_flow"
_WAITS_S = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400)
_TIMES_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_MOST_FLOWS, _MOST_OTHERS = 50, 100  # different labels; further ones are told as `other`


def routes(app: App, closing: ExitStack | None = None) -> list[Route]:
    """The route of /metrics. `closing` ends its measuring; without it, that goes on as long as the service."""
    page = _Page(app, closing or ExitStack())
    return [Route("/metrics", page.answer, methods=["GET"])]


class _Page:
    """Answers scrapes. Measuring begins with the first one: who is never asked folds nothing."""

    def __init__(self, app: App, closing: ExitStack) -> None:
        self._app = app
        self._closing = closing
        self._registry = CollectorRegistry()
        self._figures = Figures(self._registry)
        self._lock = anyio.Lock()
        self._is_measuring = False
        self._read_at = -FRESH_S

    async def answer(self, request: Request) -> Response:
        """All figures, as the request's Accept header wants them; 503 where the database cannot be read."""
        try:
            async with self._lock:
                await self._refresh()
        except FlowError as error:
            return PlainTextResponse(f"{error.message}\n", status_code=503)
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": media_type, "cache-control": "no-store"})

    async def _refresh(self) -> None:
        telemetry = self._app.service.telemetry
        if not self._is_measuring:
            self._closing.callback(await telemetry.measure(self._figures))
            self._is_measuring = True
        if monotonic() - self._read_at >= FRESH_S:
            self._figures.read(await telemetry.readings())
            self._read_at = monotonic()


class Figures:
    """The metrics, and how measures and readings move them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._flows = Names(_MOST_FLOWS)
        self._agents = Names(_MOST_OTHERS)
        self._kinds = Names(_MOST_OTHERS)
        self._models = Names(_MOST_OTHERS)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{_PREFIX}_{name}", about, labels, buckets=buckets, registry=registry)

        self._submitted = counter("runs_submitted", "Runs recorded, without those of sub-flows", "flow")
        self._runs = counter("runs", "Runs that ended, without those of sub-flows", "flow", "state")
        self._run_failures = counter("run_failures", "Runs that failed, by kind of error", "kind")
        self._waits = histogram(
            "run_wait_seconds", "From a run's submission to its start, observed when it ends", _WAITS_S
        )
        self._durations = histogram("run_duration_seconds", "From a run's start to its end", _TIMES_S, "flow")
        self._attempts = counter("task_attempts", "Tries of tasks that ended", "agent", "outcome")
        self._task_failures = counter("task_failures", "Tries of tasks that failed, by kind of error", "agent", "kind")
        self._attempt_times = histogram("task_attempt_duration_seconds", "Tries of tasks", _TIMES_S, "agent")
        self._retries = counter("task_retries", "Tasks tried again, by the kind of error before", "kind")
        self._model_calls = counter("model_calls", "Calls of language models", "model")
        self._tokens = counter("model_tokens", "Tokens of language models", "model", "direction")
        self._cost = counter("model_cost_usd", "Cost of language models, where the settings have a price", "model")
        self._deliveries = counter("trigger_deliveries", "Deliveries of triggers, and what became of them", "outcome")

        self._unfinished = gauge("unfinished_runs", "Runs that have not ended (database)", "state")
        self._slots = gauge("slots", "How many runs may be under way at once (database)")
        self._oldest = gauge("oldest_queued_seconds", "Age of the oldest queued run, 0 without any (database)")
        self._servers = gauge("servers", "Servers that drive the database (database)")
        self._waiting_deliveries = gauge("waiting_deliveries", "Deliveries nothing was done about yet (database)")
        self._dispatches = gauge("unsent_dispatches", "Messages of notifications that are not sent (database)", "state")
        self._bytes = gauge("store_bytes", "Size of the database with SQLite's journal (database)")
        self._totals = _Totals()
        registry.register(self._totals)
        self._agent_load = gauge("agent_load", "Outstanding complexity per capacity", "agent")
        self._agent_running = gauge("agent_running_tasks", "Tries under way", "agent")
        self._agent_capacity = gauge("agent_capacity", "Tries that an agent runs at once", "agent")
        Info(_PREFIX, "The program", registry=registry).info({"version": program_version()})
        ProcessCollector(registry=registry)

    # Measures
    def run_submitted(self, flow_id: str) -> None:
        self._submitted.labels(self._flows.label(flow_id)).inc()

    def run_ended(
        self, flow_id: str, state: str, kind: str | None, wait_s: float | None, duration_s: float | None
    ) -> None:
        flow = self._flows.label(flow_id)
        self._runs.labels(flow, state).inc()
        if kind is not None:
            self._run_failures.labels(self._kinds.label(kind)).inc()
        if wait_s is not None:
            self._waits.observe(wait_s)
        if duration_s is not None:
            self._durations.labels(flow).observe(duration_s)

    def attempt_ended(self, agent: str, outcome: str, kind: str | None, duration_s: float) -> None:
        label = self._agents.label(agent)
        self._attempts.labels(label, outcome).inc()
        self._attempt_times.labels(label).observe(duration_s)
        if kind is not None:
            self._task_failures.labels(label, self._kinds.label(kind)).inc()

    def task_retried(self, kind: str) -> None:
        self._retries.labels(self._kinds.label(kind)).inc()

    def model_used(self, model: str, calls: int, input_tokens: int, output_tokens: int, cost_usd: float | None) -> None:
        label = self._models.label(model)
        self._model_calls.labels(label).inc(calls)
        self._tokens.labels(label, "input").inc(input_tokens)
        self._tokens.labels(label, "output").inc(output_tokens)
        if cost_usd is not None:
            self._cost.labels(label).inc(cost_usd)

    def trigger_delivered(self, outcome: str) -> None:
        self._deliveries.labels(outcome).inc()

    # Readings
    def read(self, now: Readings) -> None:
        """Set the gauges."""
        for state, number in now.runs.items():
            self._unfinished.labels(state).set(number)
        for state, number in now.dispatches.items():
            self._dispatches.labels(state).set(number)
        self._slots.set(now.slots)
        self._oldest.set(now.oldest_queued_s)
        self._servers.set(now.servers)
        self._waiting_deliveries.set(now.deliveries_waiting)
        self._bytes.set(now.store_bytes)
        self._totals.now = now
        for gauge in (self._agent_load, self._agent_running, self._agent_capacity):
            gauge.clear()
        for agent in now.agents[:_MOST_OTHERS]:
            self._agent_load.labels(agent.name).set(agent.load)
            self._agent_running.labels(agent.name).set(agent.running)
            self._agent_capacity.labels(agent.name).set(agent.capacity)


class _Totals(Collector):
    """Counters that are kept elsewhere."""

    def __init__(self) -> None:
        self.now: Readings | None = None

    def collect(self) -> Iterator[Metric]:
        now = self.now
        if now is None:
            return
        for name, about, value in (
            ("journal_entries", "Entries that the journal has ever had (database)", now.events),
            ("store_commits", "Commits of this process since it opened the database", now.commits),
            ("store_changes", "Changes in these commits", now.changes),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", about, value)
