"""Pages and cursors: complete, without repetition, and bound to their database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.clock import iso
from contexten.extensions.flow.errors import FlowNotFound, IllegalMove, InvalidArguments, RunNotFound, TaskNotFound
from contexten.extensions.flow.store.cursors import decode, encode

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf

pytestmark = pytest.mark.anyio


def flow(name: str, **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": [{"name": name}]}], **fields}


@pytest.mark.parametrize("seq", [0, 1, 10**17])
def test_a_cursor_gives_its_place_back_in_its_own_database_only(seq: int) -> None:
    cursor = encode("abc123", seq)
    assert decode("abc123", cursor) == seq
    assert decode("fff000", cursor) is None


@pytest.mark.parametrize(
    "cursor", ["", ".", "abc123", "abc123.", "abc123.-1", "abc123.1.5", "abc123.x", "abc123.²", "abc123." + "9" * 19]
)
def test_what_is_no_cursor_is_none(cursor: str) -> None:
    assert decode("abc123", cursor) is None


def test_times_are_iso_8601_in_utc() -> None:
    assert iso(1.25) == "1970-01-01T00:00:01.250+00:00"
    assert iso(None) is None


async def test_pages_of_runs_are_complete_newest_first_and_never_repeat(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        ids = [(await flows.execute_flow(workflow_def=flow("a"))).run_id for _ in range(7)]
        pages, page = [], None
        while True:
            answer = await flows.list_runs(limit=3, page=page)
            pages.append([run.run_id for run in answer.runs])
            if (page := answer.next_page) is None:
                break
            await flows.execute_flow(workflow_def=flow("a"))  # what comes meanwhile does not shift the pages
    assert [len(part) for part in pages] == [3, 3, 1]
    assert [run_id for part in pages for run_id in part] == ids[::-1]


async def test_pages_of_flows_are_complete_and_can_be_filtered(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        for number in range(5):
            await flows.create_flow(
                flow_id=f"f{number}", workflow_def=flow(f"t{number}", tags=["odd"] if number % 2 else [])
            )
        await end_of(flows, (await flows.execute_flow(flow_id="f3")).run_id)
        first = await flows.list_flows(limit=4)
        second = await flows.list_flows(limit=4, page=first.next_page)
        assert [row.flow_id for row in (*first.flows, *second.flows)] == ["f4", "f3", "f2", "f1", "f0"]
        assert second.next_page is None
        assert [row.flow_id for row in (await flows.list_flows(tag="odd")).flows] == ["f3", "f1"]
        assert [row.flow_id for row in (await flows.list_flows(status="completed")).flows] == ["f3"]
        assert len((await flows.list_flows(status="idle")).flows) == 4
        assert [run.flow_id for run in (await flows.list_runs(tag="odd")).runs] == ["f3"]
        assert (await flows.list_runs(flow_id="f0")).runs == []
        row = first.flows[1]
        assert (row.state, row.runs) == ("completed", 1)
        assert row.latest_run is not None


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"page": "nonsense"}, "/page"),
        ({"limit": 0}, "/limit"),
        ({"limit": 201}, "/limit"),
        ({"status": "done"}, "/status_filter"),
    ],
)
async def test_a_list_refuses_what_it_does_not_know(
    settings: FlowSettings, arguments: dict[str, Any], path: str
) -> None:
    async with FlowService(settings, drive=False) as flows:
        for ask in (flows.list_flows, flows.list_runs):
            with pytest.raises(InvalidArguments) as caught:
                await ask(**arguments)
            assert caught.value.issues[0].path == path


async def test_a_page_of_another_list_is_refused(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        for number in range(3):
            await flows.create_flow(flow_id=f"f{number}", workflow_def=flow(f"t{number}"))
            await flows.execute_flow(flow_id=f"f{number}")
        runs = (await flows.list_runs(limit=1)).next_page
        assert len((await flows.list_runs(limit=1, page=runs)).runs) == 1
        saved = (await flows.list_flows(limit=1)).next_page
        for ask in (
            partial(flows.list_flows, page=runs),
            partial(flows.list_flows, page=saved, tag="x"),
            partial(flows.list_runs, page=saved),
            partial(flows.list_runs, page=runs, status="failed"),
            partial(flows.list_runs, page=runs, tag="x"),
            partial(flows.list_runs, page=runs, flow_id="f0"),
        ):
            with pytest.raises(InvalidArguments, match="That page is not of this list") as caught:
                await ask()
            assert caught.value.issues[0].code == "invalid_page"


async def test_runs_of_a_flow_that_is_not_there_are_not_an_empty_list(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(flow_id="nightly", workflow_def=flow("a"))
        assert (await flows.list_runs(flow_id="nightly")).runs == []
        with pytest.raises(FlowNotFound, match="Did you mean 'nightly'"):
            await flows.list_runs(flow_id="nightyl")


async def test_long_journals_are_read_in_parts_that_join_without_a_gap(settings: FlowSettings, end_of: EndOf) -> None:
    wide = {"stages": [{"name": "only", "tasks": [{"name": "each", "for_each": list(range(60))}]}]}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=wide)).run_id)
        whole = [event.cursor for event in await flows.events(run.run_id, limit=10_000)]
        parts: list[str] = []
        since = None
        while True:
            answer = await flows.get_run(run.run_id, detail="events", since=since, limit=25)
            parts += [event.cursor for event in answer.events or []]
            if not answer.more_events:
                break
            since = answer.cursor
    assert len(whole) > 100
    assert parts == whole


async def test_events_of_one_task_only(settings: FlowSettings, end_of: EndOf) -> None:
    two = {"stages": [{"name": "only", "tasks": [{"name": "a"}, {"name": "b"}]}]}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=two)).run_id)
        answer = await flows.get_run(run.run_id, detail="events", task="b")
    assert [event.type for event in answer.events or []] == ["task.running", "task.completed"]


@pytest.mark.parametrize("detail", ["summary", "tasks"])
async def test_a_task_alone_is_told_as_its_entry_among_the_tasks(
    settings: FlowSettings, end_of: EndOf, detail: Any
) -> None:
    two = {"stages": [{"name": "only", "tasks": [{"name": "a"}, {"name": "b"}]}]}
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=two)).run_id)
        found = await flows.get_run(run.run_id, detail=detail, task="b")
    assert [task.name for task in found.tasks or []] == ["b"]


async def test_the_definition_of_a_task_alone(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow("a"))).run_id)
        assert (await flows.get_run(run.run_id, detail="definition", task="a")).definition == {"name": "a"}
        with pytest.raises(TaskNotFound):
            await flows.get_run(run.run_id, task="b")


async def test_what_is_not_there_is_answered_with_what_is(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow("load"))).run_id)
        with pytest.raises(RunNotFound, match=run.run_id):
            await flows.get_run(run.run_id[:-1] + "~")
        with pytest.raises(TaskNotFound, match="load"):
            await flows.get_run(run.run_id, detail="tasks", task="loud")
        with pytest.raises(TaskNotFound, match="Did you mean 'load'"):
            await flows.task_output(run.run_id, "laod")


async def test_an_output_that_is_not_there_yet_says_so(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        run = await flows.execute_flow(workflow_def=flow("load"))
        with pytest.raises(IllegalMove, match="pending"):
            await flows.task_output(run.run_id, "load")
        with pytest.raises(IllegalMove, match="scheduled"):
            await flows.run_output(run.run_id)


async def test_how_soon_to_ask_again_depends_on_the_state(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings, drive=False) as flows:
        run = await flows.execute_flow(workflow_def=flow("a"))
        assert run.next_poll_s > 0
        assert (await flows.control(run.run_id, "pause")).next_poll_s > run.next_poll_s
        assert (await flows.control(run.run_id, "cancel")).next_poll_s == 0
