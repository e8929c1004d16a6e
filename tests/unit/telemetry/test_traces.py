"""Ended runs as traces: run, stage, task, item and try, with the times of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.store.sql import SQL
from contexten.extensions.flow.telemetry import tracing

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

SECRET = "do not tell"


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "work", "tasks": list(tasks)}], **fields}


def task(tool: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": [tool], "retry": {"max_attempts": 2, "delay_s": 0}, **fields}


async def shaky(task: TaskCall, context: AttemptContext) -> str:
    context.log("info", SECRET)
    if context.attempt == 1:
        raise AttemptError(SECRET, kind="network")
    context.record("task.usage", {"model": "m", "input_tokens": 70, "output_tokens": 7, "cost_usd": 0.5})
    return SECRET


async def broken(task: TaskCall) -> str:
    raise AttemptError(SECRET, kind="invalid")


AGENTS = [shaky, broken]


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}


def parent_of(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> str | None:
    names = {other.context.span_id: other.name for other in spans if other.context is not None}
    return names.get(span.parent.span_id) if span.parent is not None else None


async def ran(flows: FlowService, end_of: EndOf, definition: dict[str, Any], **request: Any) -> str:
    run = await flows.execute_flow(workflow_def=definition, flow_id="some", **request)
    await end_of(flows, run.run_id)
    return run.run_id


async def test_a_run_is_told_with_its_stages_tasks_and_tries(
    settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=AGENTS) as flows:
        run_id = await ran(flows, end_of, flow(task("shaky", "fetch")), inputs={"password": SECRET})
    told = spans.get_finished_spans()
    named = by_name(told)
    run, stage, fetch = named["flow some"], named["stage work"], named["task fetch"]
    assert run.attributes is not None
    assert run.attributes["contexten.run.id"] == run_id
    assert run.attributes["contexten.run.state"] == "completed"
    assert (run.parent, run.status.status_code) == (None, StatusCode.UNSET)
    assert (parent_of(stage, told), parent_of(fetch, told)) == ("flow some", "stage work")
    first, second = sorted((span for span in told if span.name == "attempt"), key=lambda span: span.start_time or 0)
    assert {parent_of(first, told), parent_of(second, told)} == {"task fetch"}
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["error.type"], first.status.status_code) == ("network", StatusCode.ERROR)
    assert second.attributes["contexten.agent.name"] == "shaky"
    assert second.attributes["gen_ai.request.model"] == "m"
    assert second.attributes["gen_ai.usage.input_tokens"] == 70
    assert run.start_time <= fetch.start_time <= first.end_time <= second.start_time <= run.end_time  # type: ignore[operator]  # ended
    assert len({span.context.trace_id for span in told if span.context}) == 1


async def test_the_times_are_the_journal_s(settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf) -> None:
    async with FlowService(settings, agents=AGENTS) as flows:
        run_id = await ran(flows, end_of, flow(task("shaky", "fetch")))
        at = {
            row["type"]: row["at"]
            for row in await flows._store.rows("SELECT type, at FROM events WHERE run_id = ? ORDER BY seq", (run_id,))
        }
    fetch = by_name(spans.get_finished_spans())["task fetch"]
    run = by_name(spans.get_finished_spans())["flow some"]
    assert abs((run.start_time or 0) / 1e9 - at["run.scheduled"]) < 1e-5
    assert abs((run.end_time or 0) / 1e9 - at["run.completed"]) < 1e-5
    assert abs((fetch.end_time or 0) / 1e9 - at["task.completed"]) < 1e-5


async def test_nothing_that_passes_through_a_run_is_told(
    settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=AGENTS) as flows:
        await ran(flows, end_of, flow(task("shaky", "a"), task("broken", "b")), inputs={"password": SECRET})
    told = spans.get_finished_spans()
    run = by_name(told)["flow some"]
    assert run.attributes is not None
    assert (run.attributes["error.type"], run.status.status_code) == ("invalid", StatusCode.ERROR)
    assert not [span.name for span in told if SECRET in span.to_json()]


async def test_a_sub_flow_nests_below_its_task_and_items_below_theirs(
    settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf
) -> None:
    call = {"name": "call", "type": "flow", "parameters": {"flow_id": "inner"}}
    items = task("shaky", "each", for_each="[1, 2]")
    async with FlowService(settings, agents=AGENTS) as flows:
        await flows.create_flow(workflow_def=flow(task("shaky", "deep")), flow_id="inner")
        await ran(flows, end_of, flow(call, items))
    told = spans.get_finished_spans()
    inner = by_name(told)["flow inner"]
    assert parent_of(inner, told) == "task call"
    assert len([span for span in told if span.name.startswith("flow ")]) == 2  # told once, with its root
    each = [span for span in told if span.name == "task each"]
    assert sorted(str((span.attributes or {}).get("contexten.task.item")) for span in each) == ["0", "1", "None"]
    assert sorted(str(parent_of(span, told)) for span in each) == ["stage work", "task each", "task each"]


async def test_the_trace_goes_on_where_the_run_was_submitted_though_another_service_ends_it(
    settings: FlowSettings, spans: InMemorySpanExporter, tracers: TracerProvider, end_of: EndOf
) -> None:
    tracer = tracers.get_tracer("a program")
    async with FlowService(settings, agents=AGENTS, drive=False) as desk:
        with tracer.start_as_current_span("asking") as asking:
            run = await desk.execute_flow(workflow_def=flow(task("shaky", "fetch")), flow_id="some")
    async with FlowService(settings, agents=AGENTS) as flows:
        await end_of(flows, run.run_id)
    told = spans.get_finished_spans()
    assert parent_of(by_name(told)["flow some"], told) == "asking"
    assert {span.context.trace_id for span in told if span.context} == {asking.get_span_context().trace_id}


async def test_a_trace_that_is_not_sampled_is_not_told(
    settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf
) -> None:
    far = trace.NonRecordingSpan(trace.SpanContext(1 << 64, 1 << 32, is_remote=True, trace_flags=trace.TraceFlags(0)))
    async with FlowService(settings, agents=AGENTS) as flows:
        with trace.use_span(far):
            await ran(flows, end_of, flow(task("shaky", "fetch")))
    assert spans.get_finished_spans() == ()


async def test_a_run_cancelled_in_the_queue_is_told_too(
    settings: FlowSettings, spans: InMemorySpanExporter, gate: Gate
) -> None:
    one_slot = settings.model_copy(update={"max_concurrent_flows": 1})
    async with FlowService(one_slot, agents=[gate]) as flows:
        first = await flows.execute_flow(workflow_def=flow(task("gate", "hold")), flow_id="first")
        await gate.reached.wait()
        second = await flows.execute_flow(workflow_def=flow(task("gate", "hold")), flow_id="second")
        await flows.control(second.run_id, "cancel")
        gate.opened.set()
        await flows.wait(first.run_id)
    told = spans.get_finished_spans()
    named = by_name(told)
    assert named["flow second"].attributes is not None
    assert named["flow second"].attributes["contexten.run.state"] == "cancelled"
    assert "flow first" in named


async def test_a_large_run_is_told_up_to_a_bound_and_says_so(
    settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MOST_PIECES", 10)
    async with FlowService(settings, agents=AGENTS) as flows:
        await ran(flows, end_of, flow(task("shaky", "each", for_each="[1, 2, 3, 4, 5, 6, 7, 8]")))
    told = spans.get_finished_spans()
    run = by_name(told)["flow some"]
    assert run.attributes is not None
    assert int(str(run.attributes["contexten.dropped_spans"])) > 0
    assert len(told) <= 13


async def test_an_exporter_that_raises_breaks_nothing(
    settings: FlowSettings,
    tracers: TracerProvider,
    end_of: EndOf,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no tracer")

    monkeypatch.setattr(tracers, "get_tracer", refuse)
    async with FlowService(settings, agents=AGENTS) as flows:
        for _ in range(2):
            await ran(flows, end_of, flow(task("shaky", "fetch")))
    assert [record.message for record in caplog.records if "no trace of run" in record.message] != []


async def test_a_long_story_holds_up_no_other_read(
    settings: FlowSettings, spans: InMemorySpanExporter, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    async with FlowService(settings, agents=AGENTS) as flows:
        survey = flows._store.survey

        async def noted(sql: str, parameters: Any = ()) -> Any:
            asked.append(sql)
            return await survey(sql, parameters)

        monkeypatch.setattr(flows._store, "survey", noted)
        await ran(flows, end_of, flow(task("broken", "t")))
    assert {SQL["story_events"], SQL["story_agents"]} <= {*asked}
    assert spans.get_finished_spans()
