"""Runs and journal entries as text for other programs."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.history import EVENT_COLUMNS, RUN_COLUMNS, exporting

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, FakeClock

pytestmark = pytest.mark.anyio


def flow(**task: Any) -> dict[str, Any]:
    data = {"required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}
    return {"stages": [{"name": "only", "tasks": [{"name": "job", **data, **task}]}]}


async def text_of(flows: FlowService, *args: Any, **given: Any) -> str:
    return "".join([page async for page in await flows.history.export(*args, **given)])


async def test_runs_and_events_come_as_lines_of_json_in_their_order(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(workflow_def=flow(), flow_id="some")
        run_ids = [(await flows.execute_flow(flow_id="some")).run_id for _ in range(3)]
        for run_id in run_ids:
            await end_of(flows, run_id)
        runs = [json.loads(line) for line in (await text_of(flows, "runs")).splitlines()]
        events = [json.loads(line) for line in (await text_of(flows, "events")).splitlines()]
    assert [run["run_id"] for run in runs] == run_ids
    assert runs[0].keys() <= set(RUN_COLUMNS)
    assert (runs[0]["state"], runs[0]["completed"], runs[0]["retries"]) == ("completed", 1, 0)
    assert runs[0]["duration_s"] >= 0
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    (scheduled,) = [event for event in events if event.get("run_id") == run_ids[0] and event["type"] == "run.scheduled"]
    assert scheduled["data"]["version"] == 1
    assert scheduled.keys() <= set(EVENT_COLUMNS)


async def test_no_cell_of_a_csv_is_a_formula(settings: FlowSettings) -> None:
    name = '=HYPERLINK("http://evil","x")'
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def=flow() | {"name": name}, flow_id="some")
        run = await flows.execute_flow(flow_id="some")
        await flows.control(run.run_id, "cancel", reason='@SUM(1+1)\n,"')
        table = list(csv.reader(io.StringIO(await text_of(flows, "runs", "csv"), newline="")))
        journal = list(csv.DictReader(io.StringIO(await text_of(flows, "events", "csv"), newline="")))
    assert table[0] == list(RUN_COLUMNS)
    cells = dict(zip(RUN_COLUMNS, table[1], strict=True))
    assert cells["name"] == f"'{name}"
    assert cells["reason"] == "'@SUM(1+1)\n,\""
    assert cells["retries"] == "0"
    assert not [cell for row in table for cell in row if cell.startswith(("=", "@"))]
    assert json.loads(journal[-1]["data"]) == {"reason": '@SUM(1+1)\n,"'}


async def test_an_export_is_read_page_by_page_and_ends_where_the_journal_ended_when_it_began(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 2)
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def=flow(), flow_id="some")
        for _ in range(5):
            await flows.execute_flow(flow_id="some")
        pages = []
        async for page in await flows.history.export("runs"):
            pages.append(page.splitlines())
            await flows.execute_flow(flow_id="some")  # comes too late
    assert [len(page) for page in pages] == [2, 2, 1]


async def test_a_span_and_a_flow_choose_what_is_exported(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, drive=False, clock=clock) as flows:
        for flow_id in ("one", "two"):
            await flows.create_flow(workflow_def=flow(), flow_id=flow_id)
        for flow_id in ("one", "two", "one"):
            await flows.execute_flow(flow_id=flow_id)
            clock.wall += 3600
        of_one = await text_of(flows, "runs", flow_id="one")
        late = await text_of(flows, "runs", since="2030-01-01T00:30:00Z", until="2030-01-01T01:30:00Z")
        nothing = await text_of(flows, "events", "csv", since="2031-01-01")
    assert len(of_one.splitlines()) == 2
    assert [json.loads(line)["flow_id"] for line in late.splitlines()] == ["two"]
    assert nothing.split() == [",".join(EVENT_COLUMNS)]


async def test_what_cannot_be_exported_is_refused_before_the_first_page(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        with pytest.raises(InvalidArguments) as refused:
            await flows.history.export("flows")  # type: ignore[arg-type]  # wrong on purpose
        assert refused.value.issues[0].path == "/what"
        with pytest.raises(InvalidArguments):
            await flows.history.export("runs", "xml")  # type: ignore[arg-type]  # wrong on purpose
