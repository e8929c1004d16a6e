"""/metrics: what Prometheus scrapes, and the dashboard file that is made for it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.telemetry import AgentReading, Readings
from contexten.extensions.flow.telemetry.folding import Fold
from contexten_server import metrics
from contexten_tools import App

if TYPE_CHECKING:
    from tests.protocol.conftest import Live

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@asynccontextmanager
async def scraper(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=list(metrics.routes(app))))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def scraped(http: httpx.AsyncClient, **headers: str) -> Samples:
    answer = await http.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name.removeprefix("contexten_flow_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


class Worker:
    """Fails once for want of a network, then uses a model; a bad one always fails."""

    agent_type = "any"
    capacity = 5

    def __init__(self, name: str) -> None:
        self.name = name
        self.tools = (name,)

    async def run(self, task: TaskCall, context: AttemptContext) -> str:
        if self.name == "bad":
            raise AttemptError("no", kind="invalid")
        if context.attempt == 1:
            raise AttemptError("not yet", kind="network")
        context.record(
            "task.usage", {"model": "m", "model_calls": 2, "input_tokens": 70, "output_tokens": 7, "cost_usd": 0.5}
        )
        return "done"


def flow(tool: str) -> dict[str, Any]:
    retry = {"max_attempts": 2, "delay_s": 0}
    return {"stages": [{"name": "s", "tasks": [{"name": "t", "required_tools": [tool], "type": "t", "retry": retry}]}]}


async def test_runs_and_tries_are_counted_once_with_their_ends_and_kinds(settings: FlowSettings) -> None:
    call = {"name": "call", "type": "flow", "parameters": {"flow_id": "good"}}
    agents = [Worker("good"), Worker("bad")]
    with anyio.fail_after(30):
        async with (
            FlowService(settings, agents=agents) as service,
            scraper(App(service=service, settings=settings)) as http,
        ):
            before = await scraped(http)
            for name in ("good", "bad"):
                await service.create_flow(workflow_def=flow(name), flow_id=name)
            await service.create_flow(workflow_def={"stages": [{"name": "s", "tasks": [call]}]}, flow_id="outer")
            for name in ("good", "bad", "outer"):
                await service.run_flow(flow_id=name)
            after = await scraped(http)
    assert of(before, "runs_total", flow="good", state="completed") is None
    assert of(after, "runs_submitted_total", flow="good") == 1
    assert of(after, "runs_total", flow="good", state="completed") == 1  # a sub-flow's run counts as none
    assert of(after, "runs_total", flow="outer", state="completed") == 1
    assert of(after, "runs_total", flow="bad", state="failed") == 1
    assert of(after, "run_failures_total", kind="invalid") == 1
    assert of(after, "run_wait_seconds_count") == 3
    assert of(after, "run_duration_seconds_count", flow="outer") == 1
    assert of(after, "task_attempts_total", agent="good", outcome="failed") == 2
    assert of(after, "task_attempts_total", agent="good", outcome="completed") == 2
    assert of(after, "task_failures_total", agent="bad", kind="invalid") == 1
    assert of(after, "task_retries_total", kind="network") == 2
    assert of(after, "task_attempt_duration_seconds_count", agent="good") == 4
    assert of(after, "model_tokens_total", model="m", direction="input") == 140
    assert of(after, "model_calls_total", model="m") == 4
    assert of(after, "model_cost_usd_total", model="m") == 1.0
    entries = [of(samples, "journal_entries_total") or 0 for samples in (before, after)]
    assert entries[0] <= entries[1]


async def test_gauges_tell_what_stands_where(live: Live) -> None:
    with anyio.fail_after(30):
        run = await live.service.execute_flow(workflow_def=live.flow(live.gate_task()))
        await live.gate.reached.wait()
        async with scraper(live.app) as http:
            samples = await scraped(http)
        live.gate.opened.set()
        await live.service.wait(run.run_id)
    assert of(samples, "unfinished_runs", state="running") == 1
    assert of(samples, "unfinished_runs", state="scheduled") == 0
    assert of(samples, "slots") == 100
    assert of(samples, "servers") == 1
    assert of(samples, "agent_running_tasks", agent="gate") == 1
    assert of(samples, "agent_capacity", agent="gate") == 100
    assert (of(samples, "store_bytes") or 0) > 4096
    assert (of(samples, "journal_entries_total") or 0) >= 4
    assert (of(samples, "store_commits_total") or 0) >= 1
    assert of(samples, "unsent_dispatches", state="dead") == 0


async def test_openmetrics_is_answered_to_who_asks_for_it(live: Live) -> None:
    async with scraper(live.app) as http:
        plain = await http.get("/metrics")
        wanted = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert wanted.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(wanted.text)}  # type: ignore[no-untyped-call]  # it has none
    assert {"contexten_flow", "contexten_flow_runs", "contexten_flow_slots"} <= names


async def test_scrapes_that_follow_each_other_read_the_database_once(live: Live) -> None:
    asked = 0
    readings = live.service.telemetry.readings

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await readings()

    live.service.telemetry.readings = counted  # type: ignore[method-assign]  # counts
    async with scraper(live.app) as http:
        for _ in range(5):
            await scraped(http)
    assert asked == 1


async def test_a_server_process_counts_what_it_runs(serve: Callable[..., Any], live: Live) -> None:
    served = serve()
    with anyio.fail_after(30):
        async with httpx.AsyncClient(base_url=served.base, timeout=30) as http, served.client("2026-07-28") as mcp:
            before = await scraped(http)
            await mcp.call_tool("create_flow", {"flow_id": "counted", "workflow_def": live.flow(live.value_task())})
            for _ in range(2):
                answer = await mcp.call_tool("execute_flow", {"flow_id": "counted", "wait_s": 20})
                assert answer.structured_content["state"] == "completed"
            after = await scraped(http)
    assert of(before, "runs_total", flow="counted", state="completed") is None
    assert of(after, "runs_submitted_total", flow="counted") == 2
    assert of(after, "runs_total", flow="counted", state="completed") == 2
    assert of(after, "run_duration_seconds_count", flow="counted") == 2
    assert of(after, "run_wait_seconds_count") == 2
    assert of(after, "task_attempts_total", agent="builtin", outcome="completed") == 2


async def test_who_is_never_asked_folds_nothing(live: Live) -> None:
    routes = metrics.routes(live.app)
    await live.service.run_flow(workflow_def=live.flow(live.value_task()))
    assert not [fold for fold in live.service._feed._listeners.values() if isinstance(fold, Fold)]
    assert [route.path for route in routes] == ["/metrics"]


def test_labels_are_bounded_whatever_people_call_their_flows() -> None:
    registry = CollectorRegistry()
    figures = metrics.Figures(registry)
    for number in range(200):
        figures.run_ended(f"flow-{number}", "failed", f"kind-{number}", 0.1, 1.0)
        figures.attempt_ended(f"agent-{number}", "completed", None, 1.0)
    samples = [sample for family in registry.collect() for sample in family.samples]
    flows = {sample.labels["flow"] for sample in samples if "flow" in sample.labels}
    agents = {sample.labels["agent"] for sample in samples if "agent" in sample.labels}
    assert len(flows) == 51
    assert "other" in flows
    assert len(agents) == 101
    assert all("run_" not in value for sample in samples for value in sample.labels.values())
    assert len(samples) < 5000


async def test_metrics_are_behind_the_token_as_all_else(serve: Callable[..., Any]) -> None:
    served = serve(token="secret-token-of-a-test")
    async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
        assert (await http.get("/metrics")).status_code == 401
        answer = await http.get("/metrics", headers=served.headers)
    assert answer.status_code == 200
    assert "contexten_flow_slots" in answer.text


READ = Readings(
    runs={"running": 1},
    slots=100,
    oldest_queued_s=0.0,
    servers=1,
    deliveries_waiting=0,
    dispatches={"dead": 0},
    store_bytes=1,
    events=1,
    commits=1,
    changes=1,
    agents=(AgentReading(name="agent", capacity=1, running=0, load=0.0),),
)


def names_of(registry: CollectorRegistry) -> set[str]:
    """All that a query may name."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
    return {f"{family.name}{suffix}" for family in registry.collect() for suffix in suffixes.get(family.type, ("",))}


def test_every_metric_and_label_of_the_grafana_dashboard_exists() -> None:
    registry = CollectorRegistry()
    figures = metrics.Figures(registry)
    figures.read(READ)
    figures.run_submitted("flow")
    figures.run_ended("flow", "failed", "timeout", 0.1, 1.0)
    figures.attempt_ended("agent", "failed", "timeout", 1.0)
    figures.task_retried("timeout")
    figures.model_used("model", 1, 1, 1, 0.1)
    figures.trigger_delivered("started")
    dashboard = json.loads((ROOT / "docs" / "grafana" / "contexten-flow.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) >= 30
    named = {name for query in queries for name in re.findall(r"\b(?:contexten_flow|process)_\w+", query)}
    assert named <= names_of(registry)
    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    labels.add("instance")  # given by Prometheus
    grouped = {
        label.strip() for query in queries for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")
    }
    assert grouped <= labels


def test_every_metric_is_in_the_documents_and_no_other() -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    registry = CollectorRegistry()
    metrics.Figures(registry).read(READ)
    own = {name for name in names_of(registry) if name.startswith("contexten_flow")}
    named = set(re.findall(r"\bcontexten_flow_[a-z_]+", text + operations))
    own |= {re.sub(r"_(bucket|count|sum)$", "", name) for name in own}
    assert named <= own
    own = {re.sub(r"_(bucket|count|sum)$", "", name) for name in own}
    assert [name for name in sorted(own) if f"`{name}" not in text] == []
