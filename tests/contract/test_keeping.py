"""What is kept: large texts once, finished runs for a time, places in the journal for those who hold them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import housekeeping
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.errors import InvalidArguments, RunNotFound
from contexten.extensions.flow.housekeeping import keep_line
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.states import RunState, TaskState
from contexten.extensions.flow.store import StoredText
from contexten.extensions.flow.store.cursors import decode, encode
from contexten.extensions.flow.store.retention import prune, prune_entries, prune_flows
from contexten.extensions.flow.store.triggers import prune_deliveries
from contexten.extensions.flow.store.verify import verify

from .conftest import Hand, sub_flow_of, task_move

pytestmark = pytest.mark.anyio

BIG = json.dumps("x" * 70_000)
OTHER = json.dumps("y" * 70_000)


# Large texts
async def test_a_text_over_64_kib_is_stored_once_however_often_it_is_recorded(hand: Hand) -> None:
    for _ in range(3):
        run = await hand.running()
        await hand.advance(run, task_move(TaskState.RUNNING, items=StoredText.of(f"[{BIG}]")))
        await hand.advance(run, task_move(TaskState.COMPLETED, TaskState.RUNNING, output=StoredText.of(BIG)))
        await hand.end(run, output=StoredText.of(BIG))
    assert await hand.count("blobs") == 2
    rows = await hand.store.rows("SELECT output, output_digest, output_bytes FROM tasks")
    assert all(row[0] is None and row[1] and row[2] == len(BIG) for row in rows)


async def test_the_limit_counts_bytes_not_characters() -> None:
    assert StoredText.of("x" * 65_536).digest is None
    assert StoredText.of("x" * 65_537).digest is not None
    assert StoredText.of("ä" * 32_768).digest is None
    assert StoredText.of("ä" * 32_769).digest is not None
    assert StoredText.of("ä" * 32_769).size == 65_538


class Loud:
    """Answers with as many characters as it is asked for."""

    name = "loud"
    agent_type = "test"
    tools = ("say",)
    capacity = 100

    async def run(self, task: Any, context: Any) -> Any:
        return "x" * task.parameters["size"]


def say(name: str, size: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "test", "required_tools": ["say"], "parameters": {"size": size}, **fields}


@pytest.fixture
async def service(database: Path) -> AsyncIterator[FlowService]:
    async with FlowService(FlowSettings(database=database), agents=[Loud()]) as service:
        yield service


async def test_a_large_output_can_be_read_passed_on_and_taken_over(service: FlowService) -> None:
    flow = {
        "stages": [
            {
                "name": "s",
                "tasks": [say("big", 100_000), say("after", 5, when="{{ size(tasks.big.output) == 100000 }}")],
            }
        ],
        "output": "{{ tasks.big.output }}",
    }
    with anyio.fail_after(30):
        run = await service.execute_flow(workflow_def=flow)
        await service.wait(run.run_id)
        again = await service.control(run.run_id, "rerun_from", task="after")
        assert again.taken_over == ["big"]
        await service.wait(again.run_id)
    for run_id in (run.run_id, again.run_id):
        assert json.loads(await service.task_output(run_id, "big")) == "x" * 100_000
        assert json.loads(await service.run_output(run_id)) == "x" * 100_000
        assert json.loads(await service.task_output(run_id, "after")) == "xxxxx"
    rows = await service._store.rows("SELECT count(*) FROM blobs")
    assert rows[0][0] == 1


# Retention
async def finished(hand: Hand, ended_at: float, output: str = "1") -> str:
    run = await hand.running()
    await hand.advance(run, task_move(TaskState.RUNNING))
    await hand.advance(run, task_move(TaskState.COMPLETED, TaskState.RUNNING, output=StoredText.of(output)))
    await hand.end(run)
    await hand.store.write(lambda tx: tx.rows("UPDATE runs SET ended_at = ? WHERE run_id = ?", (ended_at, run.run_id)))
    return run.run_id


async def runs(hand: Hand) -> set[str]:
    return {row[0] for row in await hand.store.rows("SELECT run_id FROM runs")}


async def test_pruning_takes_what_ended_before_the_time_and_nothing_else(hand: Hand) -> None:
    old = [await finished(hand, 10.0) for _ in range(2)]
    new = [await finished(hand, 20.0) for _ in range(2)]
    assert await hand.store.write(lambda tx: prune(tx, ended_before=15.0, up_to=0)) == len(old)
    assert await runs(hand) == set(new)
    for table in ("tasks", "events"):
        rows = await hand.store.rows(f"SELECT DISTINCT run_id FROM {table} WHERE run_id IS NOT NULL")
        assert {row[0] for row in rows} == set(new)
    assert await hand.store.write(lambda tx: prune(tx, ended_before=15.0, up_to=0)) == 0
    assert verify(hand.store.path).problems == []


async def test_pruning_keeps_the_newest_runs_up_to_the_number(hand: Hand) -> None:
    every = [await finished(hand, 10.0 + number) for number in range(5)]
    line = await keep_line(hand.store, "keep_line", 2)
    assert await hand.store.write(lambda tx: prune(tx, ended_before=0.0, up_to=line)) == 3
    assert await runs(hand) == set(every[3:])


async def test_pruning_never_touches_what_has_not_ended(hand: Hand) -> None:
    alive = [await hand.submit(), (await hand.running()).run_id]
    waiting, paused = await hand.running(), await hand.running()
    await hand.advance(waiting, task_move(TaskState.WAITING, wake_at=9.0), to=RunState.WAITING, wake_at=9.0)
    await hand.store.write(lambda tx: tx.rows("UPDATE runs SET request = 'pause' WHERE run_id = ?", (paused.run_id,)))
    await hand.advance(paused, to=RunState.PAUSED)
    alive += [waiting.run_id, paused.run_id]
    entries = await hand.count("events")
    assert await hand.store.write(lambda tx: prune(tx, ended_before=1e12, up_to=1000)) == 0
    assert await runs(hand) == set(alive)
    assert await hand.count("events") == entries


async def test_pruning_takes_sub_flows_with_their_parent_and_not_before(hand: Hand) -> None:
    run = await hand.running()
    child = sub_flow_of(run)
    await hand.advance(run, task_move(TaskState.WAITING, child_run_id="run_child"), children=(child,))
    rows = await hand.store.rows("SELECT run_id, flow_id, fence FROM runs WHERE run_id = 'run_child'")
    (owned,) = [tuple(row) for row in rows]

    class Child:
        run_id, flow_id, fence = owned

    await hand.end(Child())  # type: ignore[arg-type]  # all of a claimed run that it reads
    assert await hand.store.write(lambda tx: prune(tx, ended_before=1e12, up_to=1000)) == 0
    assert await runs(hand) == {run.run_id, "run_child"}
    await hand.advance(run, task_move(TaskState.COMPLETED, TaskState.WAITING))
    await hand.end(run)
    assert await hand.store.write(lambda tx: prune(tx, ended_before=1e12, up_to=1000)) == 1
    assert await runs(hand) == set()
    assert verify(hand.store.path).problems == []


async def test_pruning_drops_a_large_text_with_its_last_reader(hand: Hand) -> None:
    for ended_at, text in ((10.0, BIG), (10.0, OTHER), (20.0, BIG)):
        await finished(hand, ended_at, text)
    assert await hand.count("blobs") == 2
    await hand.store.write(lambda tx: prune(tx, ended_before=15.0, up_to=0))
    (row,) = await hand.store.rows("SELECT body FROM blobs")
    assert row[0] == BIG


async def test_a_flow_whose_latest_run_was_pruned_is_idle(service: FlowService) -> None:
    await service.create_flow(flow_id="f", workflow_def={"stages": [{"name": "s", "tasks": [say("a", 1)]}]})
    with anyio.fail_after(30):
        run = await service.execute_flow(flow_id="f")
        await service.wait(run.run_id)
    await service._store.write(lambda tx: prune(tx, ended_before=1e12, up_to=0))
    with pytest.raises(RunNotFound):
        await service.get_run(run.run_id)
    (flow,) = (await service.list_flows()).flows
    assert flow.state == "idle"


async def test_where_the_latest_run_of_a_flow_was_pruned_the_one_before_is_its_latest(hand: Hand) -> None:
    first, second, last = [await finished(hand, ended_at) for ended_at in (30.0, 20.0, 10.0)]
    assert await latest(hand) == last
    await hand.store.write(lambda tx: prune(tx, ended_before=25.0, up_to=0))
    assert await runs(hand) == {first}
    assert await latest(hand) == first
    await hand.store.write(lambda tx: prune(tx, ended_before=35.0, up_to=0))
    assert await latest(hand) is None
    assert second != first


async def latest(hand: Hand) -> str | None:
    (row,) = await hand.store.rows("SELECT latest_run_id FROM flows")
    return str(row[0]) if row[0] else None


SMALL = {"stages": [{"name": "s", "tasks": [say("a", 1)]}]}
FAR = 1e12


async def flow_ids(service: FlowService) -> set[str]:
    return {row[0] for row in await service._store.rows("SELECT flow_id FROM flows")}


async def test_an_unlisted_flow_goes_when_nothing_refers_to_it_any_more(service: FlowService) -> None:
    using = {"stages": [{"name": "s", "tasks": [{"name": "sub", "type": "flow", "parameters": {"flow_id": "used"}}]}]}
    with anyio.fail_after(30):
        await service.create_flow(flow_id="listed", workflow_def=SMALL)
        for flow_id, definition in (("unlisted", SMALL), ("used", SMALL), ("user", using)):
            run = await service.execute_flow(flow_id=flow_id, workflow_def=definition)
            await service.wait(run.run_id)
        every = {"listed", "unlisted", "used", "user"}

        async def pruned(saved_before: float = FAR) -> list[str]:
            return await service._store.write(lambda tx: prune_flows(tx, at=1.0, saved_before=saved_before, up_to=0))

        assert await pruned() == []  # each has a run
        await service._store.write(lambda tx: prune(tx, ended_before=FAR, up_to=0))
        assert await pruned(saved_before=0.0) == []  # they are new
        assert await flow_ids(service) == every
        assert set(await pruned()) == {"unlisted", "user"}
        assert await flow_ids(service) == {"listed", "used"}
        assert await pruned() == ["used"]  # now that its user is gone
        assert await pruned() == []
    assert (await service.verify()).ok
    gone = [event for event in await service.events() if event.type == "flow.pruned"]
    assert len(gone) == 3


async def test_unlisted_flows_beyond_the_number_go_oldest_first(service: FlowService) -> None:
    with anyio.fail_after(30):
        for flow_id in ("first", "second", "third"):
            await service.wait((await service.execute_flow(flow_id=flow_id, workflow_def=SMALL)).run_id)
    await service._store.write(lambda tx: prune(tx, ended_before=FAR, up_to=0))
    line = await keep_line(service._store, "keep_line_of_flows", 1)
    assert await service._store.write(lambda tx: prune_flows(tx, at=1.0, saved_before=0.0, up_to=line)) == [
        "first",
        "second",
    ]


async def test_a_flow_that_was_pruned_is_forgotten_here_and_in_other_processes(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contexten.extensions.flow.live.feed.FOLLOW_S", 0.001)
    settings = FlowSettings(database=database)
    async with FlowService(settings, agents=[Loud()]) as service, FlowService(settings, drive=False) as other:
        with anyio.fail_after(30):
            run = await service.execute_flow(flow_id="f", workflow_def=SMALL)
            await service.wait(run.run_id)
            await other.get_run(run.run_id)  # now it has the plan too
            await service._store.write(lambda tx: prune(tx, ended_before=FAR, up_to=0))
            gone = await service._store.write(lambda tx: prune_flows(tx, at=1.0, saved_before=FAR, up_to=0))
            service._flows.gone(gone)
            heard = anyio.Event()
            stop = other.subscribe(lambda change: heard.set() if "run.completed" in change.types else None)
            again = await service.execute_flow(
                flow_id="f", workflow_def={"stages": [{"name": "s", "tasks": [say("another", 1)]}]}
            )
            await service.wait(again.run_id)
            await heard.wait()
            stop()
            for each in (service, other):
                view = await each.get_run(again.run_id, detail="tasks")
                assert [task.name for task in view.tasks or []] == ["another"]


async def test_entries_of_no_run_are_pruned_by_age_and_number(service: FlowService) -> None:
    for name in ("one", "two", "three"):
        await service.create_flow(flow_id=name, workflow_def=SMALL)
    with anyio.fail_after(30):
        run = await service.execute_flow(flow_id="one")
        await service.wait(run.run_id)
    own = await service.events(run.run_id)
    store = service._store
    assert await store.write(lambda tx: prune_entries(tx, made_before=0.0, up_to=0)) == 0
    line = await keep_line(store, "keep_line_of_entries", 2)
    assert (
        await store.write(lambda tx: prune_entries(tx, made_before=0.0, up_to=line)) == 2
    )  # a flow's, and the server's
    assert await store.write(lambda tx: prune_entries(tx, made_before=FAR, up_to=0)) == 2
    assert await service.events(run.run_id) == own
    assert len(await service.events()) == len(own)


async def test_deliveries_beyond_the_number_that_is_kept_are_pruned_but_none_that_waits(database: Path) -> None:
    async with FlowService(FlowSettings(database=database), agents=[Loud()], drive=False) as service:
        await service.create_flow(flow_id="f", workflow_def=SMALL)
        await service.triggers.create(kind="webhook", flow_id="f", trigger_id="hook", actor=PYTHON)
        for _ in range(5):
            await service.triggers.test("hook", payload={}, start=True, actor=PYTHON)
        store = service._store
        done = "UPDATE deliveries SET state = 'filtered', ended_at = 9.0 WHERE seq != 1"
        await store.write(lambda tx: tx.execute(done).rowcount)
        line = await keep_line(store, "keep_line_of_deliveries", 3)
        assert await store.write(lambda tx: prune_deliveries(tx, ended_before=0.0, up_to=line)) == 1
        assert await store.write(lambda tx: prune_deliveries(tx, ended_before=0.0, up_to=line)) == 0
        assert [row[0] for row in await store.rows("SELECT seq FROM deliveries ORDER BY seq")] == [1, 3, 4, 5]
        assert await store.write(lambda tx: prune_deliveries(tx, ended_before=10.0, up_to=0)) == 3


# Cursors
async def test_a_cursor_before_what_was_pruned_is_answered_with_a_snapshot_and_said_so(service: FlowService) -> None:
    with anyio.fail_after(30):
        before = await service.execute_flow(workflow_def=SMALL)
        await service.wait(before.run_id)
        start = (await service.events(before.run_id))[0].cursor
        await service._store.write(lambda tx: prune(tx, ended_before=FAR, up_to=0))
        run = await service.execute_flow(workflow_def=SMALL)
        await service.wait(run.run_id)
        view = await service.get_run(run.run_id, detail="tasks", since=start)
        assert view.reset is True
        assert [task.name for task in view.tasks or []] == ["a"]
        changed = await service.wait(run.run_id, since=start, until="change")
        assert changed.reset is True
        assert changed.state == "completed"
        for run_id in (run.run_id, None):
            events = await service.events(run_id, since=start)
            assert events.reset is True
            assert events[-1].type == "run.completed"
            assert (await service.events(run_id, since=events[0].cursor)).reset is False
        assert (await service.get_run(run.run_id, since=changed.cursor)).reset is None


async def test_what_was_pruned_of_others_resets_no_cursor_of_a_runs_own(hand: Hand, database: Path) -> None:
    """It began before them and goes on: its journal is whole, however old its cursors are."""
    old = await hand.running()
    for _ in range(3):
        await finished(hand, 10.0)
    await hand.advance(old, task_move(TaskState.RUNNING))
    await hand.store.write(lambda tx: prune(tx, ended_before=15.0, up_to=0))
    async with FlowService(FlowSettings(database=database), drive=False) as guest:
        seen = []
        since = None
        while page := await guest.events(old.run_id, since=since, limit=1):
            assert page.reset is False
            seen.append(page[0].type)
            since = page[0].cursor
        assert seen == ["run.scheduled", "run.running", "task.running"]
        first = (await guest.events(old.run_id))[0].cursor
        assert (await guest.get_run(old.run_id, detail="events", since=first)).reset is None


async def test_after_a_reset_waiting_for_a_change_answers_at_once(hand: Hand, database: Path) -> None:
    """Nobody knows what changed meanwhile: the state itself is the news."""
    run = await hand.running()
    async with FlowService(FlowSettings(database=database), drive=False) as guest:
        with anyio.fail_after(30):
            view = await guest.wait(run.run_id, until="change", since="ffffff.1")
        assert view.reset is True
        assert view.state == "running"


@pytest.mark.parametrize(
    "text",
    ["", ".", "abc", "abc.", "abc.x", "abc.-1", "abc.1.2", "abc. 1", "abc.1_0", "abc.٣", "abc." + "9" * 30, "other.5"],
)
def test_a_cursor_that_is_malformed_or_foreign_is_no_place(text: str) -> None:
    assert decode("abc", text) is None


def test_a_cursor_reads_as_it_was_written() -> None:
    for seq in (0, 1, 10**17):
        assert decode("abc", encode("abc", seq)) == seq


@pytest.mark.parametrize("cursor", ["nonsense", "ffffff.3", "0.0", "", "a" * 10_000])
async def test_a_foreign_cursor_is_answered_with_a_snapshot_and_said_so(service: FlowService, cursor: str) -> None:
    with anyio.fail_after(30):
        run = await service.execute_flow(workflow_def={"stages": [{"name": "s", "tasks": [say("a", 1)]}]})
        await service.wait(run.run_id)
        view = await service.get_run(run.run_id, detail="tasks", since=cursor)
        assert view.reset is True
        assert [task.name for task in view.tasks or []] == ["a"]
        assert (await service.wait(run.run_id, since=cursor, until="change", timeout_s=5)).reset is True


async def test_a_cursor_past_the_end_of_the_journal_is_foreign_too(service: FlowService) -> None:
    """It is of the database's future: of a copy that was restored."""
    with anyio.fail_after(30):
        run = await service.execute_flow(workflow_def={"stages": [{"name": "s", "tasks": [say("a", 1)]}]})
        ended = await service.wait(run.run_id)
        identity, _, seq = ended.cursor.partition(".")
        view = await service.get_run(run.run_id, detail="tasks", since=f"{identity}.{int(seq) + 1000}")
    assert view.reset is True
    assert view.tasks


async def test_only_what_came_after_a_cursor_is_answered(service: FlowService) -> None:
    with anyio.fail_after(30):
        run = await service.execute_flow(workflow_def={"stages": [{"name": "s", "tasks": [say("a", 1)]}]})
        ended = await service.wait(run.run_id)
    events = await service.events(run.run_id)
    assert events[0].type == "run.scheduled"
    assert await service.events(run.run_id, since=ended.cursor) == []
    assert await service.events(run.run_id, since=events[1].cursor) == events[2:]
    view = await service.get_run(run.run_id, detail="tasks", since=ended.cursor)
    assert view.tasks == []
    assert view.reset is None


@pytest.mark.parametrize("page", ["nonsense", "ffffff.3", ""])
async def test_a_page_of_another_list_is_refused(service: FlowService, page: str) -> None:
    for ask in (service.list_flows, service.list_runs):
        with pytest.raises(InvalidArguments) as caught:
            await ask(page=page)
        assert caught.value.issues[0].path == "/page"


async def test_pages_show_every_run_once(service: FlowService) -> None:
    flow = {"stages": [{"name": "s", "tasks": [say("a", 1)]}]}
    with anyio.fail_after(30):
        made = [(await service.execute_flow(workflow_def=flow)).run_id for _ in range(7)]
    seen: list[str] = []
    page = None
    while True:
        answer = await service.list_runs(limit=3, page=page)
        seen += [run.run_id for run in answer.runs]
        page = answer.next_page
        if page is None:
            break
    assert seen == made[::-1]


async def test_a_defect_in_pruning_ends_nothing_else(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pruned = anyio.Event()

    def broken(*_arguments: Any, **_named: Any) -> None:
        pruned.set()
        raise ZeroDivisionError

    monkeypatch.setattr(housekeeping, "partial", broken)
    async with FlowService(FlowSettings(database=database)) as service:
        with anyio.fail_after(10):
            await pruned.wait()
        await anyio.lowlevel.checkpoint()
        run = await service.run_flow(workflow_def={"stages": [{"name": "s", "tasks": [{"name": "t"}]}]})
    assert run.state == "completed"
    assert "pruning failed" in caplog.text
