"""Measures and readings as OpenTelemetry metrics, and the folding of the journal's entries."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.live.narrator import narrate
from contexten.extensions.flow.telemetry import Names, folding
from contexten.extensions.flow.telemetry import telemetry as telemetry_module
from contexten.extensions.flow.telemetry.readings import take_readings

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio


async def shaky(task: TaskCall, context: AttemptContext) -> str:
    if context.attempt == 1:
        raise AttemptError("not yet", kind="network")
    context.record(
        "task.usage", {"model": "m", "model_calls": 3, "input_tokens": 70, "output_tokens": 7, "cost_usd": 0.5}
    )
    return "done"


def flow(tool: str = "shaky") -> dict[str, Any]:
    retry = {"max_attempts": 2, "delay_s": 0}
    return {"stages": [{"name": "s", "tasks": [{"name": "t", "type": "t", "required_tools": [tool], "retry": retry}]}]}


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


async def test_a_program_s_provider_of_meters_is_told(
    settings: FlowSettings, reader: InMemoryMetricReader, end_of: EndOf
) -> None:
    async with FlowService(settings, agents=[shaky]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(), flow_id="some")).run_id)
        with anyio.fail_after(30):
            while "contexten.flow.slots" not in (found := points(reader)):
                await anyio.lowlevel.checkpoint()
    (runs,) = found["contexten.flow.runs"]
    assert (runs.value, dict(runs.attributes)) == (
        1,
        {"contexten.flow.id": "some", "contexten.run.state": "completed"},
    )
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in found["gen_ai.client.token.usage"]}
    assert tokens == {"input": 70, "output": 7}
    (calls,) = found["contexten.flow.model.calls"]
    assert (calls.value, dict(calls.attributes)) == (3, {"gen_ai.request.model": "m"})
    outcomes = {point.attributes["contexten.task.state"] for point in found["contexten.flow.task.attempt.duration"]}
    assert outcomes == {"completed", "failed"}
    assert found["contexten.flow.slots"][0].value == 100


@pytest.mark.usefixtures("reader")
async def test_gauges_that_cannot_be_read_are_read_again(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed, read = anyio.Event(), anyio.Event()

    async def shaky_readings(*arguments: Any) -> Any:
        if failed.is_set():
            read.set()
            return await take_readings(*arguments)
        failed.set()
        raise KeyError("agents")

    monkeypatch.setattr(telemetry_module, "take_readings", shaky_readings)
    monkeypatch.setattr(telemetry_module, "READ_S", 0)
    async with FlowService(settings) as flows:
        with anyio.fail_after(30):
            await read.wait()
        assert flows.is_open
    assert "gauges could not be read" in caplog.text


async def test_nothing_listens_where_no_provider_is_set(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk.trace", raising=False)
    async with FlowService(settings, agents=[shaky]) as flows:
        assert list(flows._feed._listeners.values()) == [narrate]


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.told.append((name, *given))


async def test_a_cancelled_try_is_cancelled_and_what_never_started_has_no_duration(
    settings: FlowSettings, gate: Gate
) -> None:
    heard = Heard()
    one_slot = settings.model_copy(update={"max_concurrent_flows": 1})
    async with FlowService(one_slot, agents=[gate]) as flows:
        stop = await flows.telemetry.measure(heard)
        first = await flows.execute_flow(workflow_def=flow("gate"), flow_id="first")
        second = await flows.execute_flow(workflow_def=flow("gate"), flow_id="second")
        with anyio.fail_after(30):
            await gate.reached.wait()
            await flows.control(second.run_id, "cancel")
            await flows.control(first.run_id, "cancel")
            await flows.wait(first.run_id)
        stop()
        await flows.execute_flow(workflow_def=flow("gate"), flow_id="third")
        gate.opened.set()
    names = [(told[0], told[1], told[2]) for told in heard.told if told[0] != "run_submitted"]
    assert names == [
        ("run_ended", "second", "cancelled"),
        ("attempt_ended", "gate", "cancelled"),
        ("run_ended", "first", "cancelled"),
    ]
    ended = {told[1]: told[4:] for told in heard.told if told[0] == "run_ended"}
    assert ended["second"] == (None, None)
    assert all(seconds >= 0 for seconds in ended["first"])


async def test_tries_that_end_elsewhere_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MOST_ATTEMPTS", 3)
    known: dict[int, None] = {}
    for number in range(10):
        folding._remember(known, number, None)
    assert list(known) == [7, 8, 9]


def test_past_a_number_of_names_all_others_share_one() -> None:
    names = Names(2)
    assert [names.label(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


async def test_what_others_wrote_meanwhile_keeps_nothing_from_being_measured(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    parts: Any = {"agents": [shaky]}
    async with FlowService(settings, **parts) as flows, FlowService(settings, drive=False, **parts) as desk:
        reached, opened = anyio.Event(), anyio.Event()
        heed = flows._feed._on_foreign

        async def held_up(events: list[Any]) -> None:
            reached.set()
            await opened.wait()
            await heed(events)

        monkeypatch.setattr(flows._feed, "_on_foreign", held_up)
        stop = await flows.telemetry.measure(heard)
        with anyio.fail_after(30):
            await flows.create_flow(workflow_def=flow(), flow_id="some")
            await desk.create_flow(workflow_def=flow(), flow_id="other")
            await reached.wait()
            run = await flows.execute_flow(flow_id="some")
            while ("run_ended", "some", "completed") not in [told[:3] for told in heard.told]:
                await anyio.lowlevel.checkpoint()
            opened.set()
            await flows.wait(run.run_id)
        stop()
    (ended,) = [told for told in heard.told if told[0] == "run_ended"]
    assert None not in ended[4:]
    assert [told[1:3] for told in heard.told if told[0] == "attempt_ended"] == [
        ("shaky", "failed"),
        ("shaky", "completed"),
    ]
