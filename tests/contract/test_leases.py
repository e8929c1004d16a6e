"""Who owns a run when several servers drive one database: leases by hand-driven clocks, one a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import StoreError
from contexten.extensions.flow.execution import conductor as conductor_module
from contexten.extensions.flow.execution import intake as intake_module
from contexten.extensions.flow.execution import leases as leases_module
from contexten.extensions.flow.execution.conductor import MAX_TAKE_BACKS, Conductor
from contexten.extensions.flow.execution.leases import BEATS, Leases
from contexten.extensions.flow.execution.run import RunExecution
from contexten.extensions.flow.execution.share import YIELD_S
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store import Store
from contexten.extensions.flow.store.claims import take_over
from contexten.extensions.flow.store.queue import claim
from contexten.extensions.flow.store.servers import drivers_of
from contexten.extensions.flow.store.servers import join as become_server

pytestmark = pytest.mark.anyio

TTL_S = 10.0
BEAT_S = TTL_S / BEATS
HOLD = {"stages": [{"name": "s", "tasks": [{"name": "held", "type": "test", "required_tools": ["work"]}]}]}


class HandClock(SystemClock):
    """Its seconds pass when the test says so. Who sleeps long never wakes: the test takes each look itself."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        self.wall = 0.0

    def monotonic(self) -> float:
        return self.at

    def timestamp(self) -> float:
        return super().timestamp() + self.wall

    async def sleep(self, seconds: float) -> None:
        await (anyio.sleep_forever() if seconds >= 0.1 else super().sleep(seconds))


class Worker:
    """Holds each attempt until it is opened, or the attempt is cancelled."""

    name = "worker"
    agent_type = "test"
    capacity = 100

    def __init__(self, tool: str) -> None:
        self.tools = (tool,)
        self.opened = anyio.Event()
        self.begun = 0
        self.cancelled = 0

    async def run(self, task: Any, context: Any) -> str:
        self.begun += 1
        try:
            await self.opened.wait()
        except BaseException:
            self.cancelled += 1
            raise
        return self.name


class Member:
    """One server: its clock, its agent, and what it holds."""

    def __init__(self, database: Path, name: str, limit: int = 100, tool: str = "work") -> None:
        self.clock = HandClock()
        self.worker = Worker(tool)
        settings = FlowSettings(
            database=database, lease_ttl_s=TTL_S, stop_grace_s=0.0, max_concurrent_flows=limit, retry_delay_s=0.0
        )
        self.service = FlowService(settings, agents=[self.worker], holder=name, clock=self.clock)

    @property
    def conductor(self) -> Conductor:
        assert self.service._driver.conductor is not None
        return self.service._driver.conductor

    @property
    def id(self) -> str:
        return self.conductor.owner

    async def look(self, *, after: float = 0.0) -> None:
        """Beat and judge, so many seconds later."""
        self.clock.at += after
        await self.conductor.leases.look()

    async def hear(self) -> None:
        """What others wrote."""
        await self.service._feed._look()

    async def submit(self) -> str:
        return (await self.service.execute_flow(workflow_def=HOLD)).run_id

    async def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.service._store.rows(sql, parameters)]

    async def owner(self, run_id: str) -> tuple[str | None, int]:
        """(owner, fence) of a run."""
        ((owner, fence),) = await self.rows("SELECT owner, fence FROM runs WHERE run_id = ?", run_id)
        return owner, fence

    async def servers(self) -> set[str]:
        return {row[0] for row in await self.rows("SELECT server_id FROM servers")}

    async def lost(self) -> list[str]:
        """Why servers were taken for dead."""
        return [row[0] for row in await self.rows("SELECT data ->> 'reason' FROM events WHERE type = 'server.lost'")]

    async def ends(self, run_id: str) -> str:
        """The state in which a run ends."""
        with anyio.fail_after(30):
            return (await self.service.wait(run_id)).state


Open = Callable[..., Any]


@pytest.fixture
async def join(database: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def join(name: str, **options: Any) -> Member:
            member = Member(database, name, **options)
            await stack.enter_async_context(member.service)
            return member

        yield join


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def silent(join: Open) -> tuple[Member, Member, str]:
    """A server that drives a run and was silent for so long that the other has taken it over; it does not know yet."""
    first, second = await join("first"), await join("second")
    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    await second.look()
    for _ in range(BEATS):
        await second.look(after=BEAT_S)
    await until(lambda: second.worker.begun)
    return first, second, run_id


async def test_a_silent_servers_lease_lapses_and_its_run_is_taken_over(join: Open) -> None:
    first, second = await join("first"), await join("second")
    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    _, fence = await first.owner(run_id)
    await second.look()
    for _ in range(BEATS - 1):
        await second.look(after=BEAT_S)
        assert await second.owner(run_id) == (first.id, fence)
    await second.look(after=BEAT_S)
    assert await second.owner(run_id) == (second.id, fence + 1)
    assert await second.servers() == {second.id}
    assert await second.lost() == [f"it was silent for {TTL_S:g} s"]
    second.worker.opened.set()
    assert await second.ends(run_id) == "completed"


async def test_a_server_that_beats_keeps_its_runs(join: Open) -> None:
    first, second = await join("first"), await join("second")
    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    before = await first.owner(run_id)
    for _ in range(4 * BEATS):
        await first.look()
        await second.look(after=BEAT_S)
    for _ in range(3):  # seldom, and yet within the time
        for _ in range(BEATS - 1):
            await second.look(after=BEAT_S)
        await first.look()
    assert await second.owner(run_id) == before
    assert await second.lost() == []


async def test_time_in_which_the_observer_did_not_look_proves_nothing(join: Open) -> None:
    first, second = await join("first"), await join("second")
    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    before = await first.owner(run_id)
    await second.look()
    await second.look(after=100 * TTL_S)  # as after a machine's sleep: the other one has not woken yet
    assert await second.owner(run_id) == before
    await first.look()
    await second.look(after=BEAT_S)
    assert await second.lost() == []


async def test_jumps_of_the_wall_clock_change_nothing(join: Open) -> None:
    first, second = await join("first"), await join("second")
    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    before = await first.owner(run_id)
    for jump in (1e6, -2e6, 3e6):
        first.clock.wall += jump
        second.clock.wall -= jump
        await first.look()
        await second.look(after=BEAT_S)
    assert await second.owner(run_id) == before
    assert await second.lost() == []


async def test_a_server_whose_process_ended_is_replaced_at_once(join: Open) -> None:
    first, second = await join("first"), await join("second")
    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    lock = first.conductor.leases._lock
    assert lock is not None
    lock.close()
    await second.look()
    assert (await second.owner(run_id))[0] == second.id
    assert await second.lost() == ["its process has ended"]
    first.conductor.leases._lock = None


async def test_what_a_lapsed_server_records_late_is_refused(join: Open) -> None:
    first, second, run_id = await silent(join)
    first.worker.opened.set()  # its attempt ends now, and it tries to record that
    await until(lambda: run_id not in first.conductor.executions)
    assert await second.owner(run_id) == (second.id, 2)
    assert await second.rows("SELECT output FROM tasks WHERE run_id = ?", run_id) == [(None,)]
    second.worker.opened.set()
    assert await second.ends(run_id) == "completed"
    assert await second.rows("SELECT count(*) FROM events WHERE type = 'task.completed'") == [(1,)]
    assert (await second.service.verify()).ok


async def test_a_lapsed_server_takes_nothing_before_it_has_noticed(join: Open) -> None:
    first, second, _ = await silent(join)
    run_id = await first.submit()
    assert await second.owner(run_id) == (None, 0)
    first.conductor.intake.kick()
    await until(lambda: not first.conductor.intake.is_claiming)
    assert await second.owner(run_id) == (None, 0)
    await second.hear()
    await until(lambda: second.worker.begun == 2)
    assert (await second.owner(run_id))[0] == second.id


async def test_a_server_that_finds_its_row_gone_ends_its_attempts_and_begins_anew(join: Open, database: Path) -> None:
    first, second, run_id = await silent(join)
    before = first.id
    await first.look()
    await until(lambda: first.worker.cancelled)
    assert first.id != before
    assert await second.servers() == {first.id, second.id}
    assert [driver["holder"] for driver in drivers_of(database)] == ["second", "first"]
    assert first.conductor.executions == {}
    assert first.conductor.roots == 0
    fresh = await first.submit()
    assert (await first.owner(fresh))[0] == first.id
    for member in (first, second):
        member.worker.opened.set()
    assert await second.ends(run_id) == "completed"
    assert await first.ends(fresh) == "completed"
    assert (await second.service.verify()).ok


async def test_a_server_that_is_seen_alive_again_is_not_expelled(join: Open) -> None:
    first, second = await join("first"), await join("second")
    await second.look()
    for _ in range(BEATS - 1):
        await second.look(after=BEAT_S)
    seen = second.conductor.leases._peers[first.id]
    await first.look()
    second.clock.at += BEAT_S
    await second.conductor.leases._settle(_look(seen.beat, first.id, second.id))  # what it read before that beat
    assert await second.servers() == {first.id, second.id}


def _look(beat: int, first: str, second: str) -> Any:
    from contexten.extensions.flow.store.servers import Beat, Look

    return Look([Beat(first, beat), Beat(second, 0)], False)


async def test_an_orderly_stop_hands_its_runs_to_the_others_at_once(join: Open, database: Path) -> None:
    second = await join("second")
    leaving = Member(database, "first")
    async with leaving.service:
        run_ids = [await leaving.submit() for _ in range(3)]
        await until(lambda: leaving.worker.begun == 3)
    await second.hear()
    await until(lambda: second.worker.begun == 3)
    for run_id in run_ids:
        assert (await second.owner(run_id))[0] == second.id
    assert await second.rows("SELECT DISTINCT interruptions FROM tasks") == [(0,)]


async def test_the_runs_of_a_dead_server_are_split_among_the_others(join: Open) -> None:
    first, second, third = [await join(name) for name in ("first", "second", "third")]
    for member in (first, second, third):
        await member.hear()
    share = first.conductor.intake.share
    share.servers = 1
    run_ids = {await first.submit() for _ in range(4)}
    await until(lambda: first.worker.begun == 4)
    lock, first.conductor.leases._lock = first.conductor.leases._lock, None
    assert lock is not None
    lock.close()
    await second.look()
    await third.hear()
    await until(lambda: second.worker.begun == third.worker.begun == 2)
    owners = [str((await second.owner(run_id))[0]) for run_id in run_ids]
    assert sorted(owners) == sorted([second.id, third.id] * 2)


async def test_a_server_that_holds_its_share_leaves_the_queue_to_the_others(join: Open) -> None:
    first, second = await join("first", limit=4), await join("second", limit=4)
    await first.look()
    for _ in range(8):
        await first.submit()
    await until(lambda: first.worker.begun == 2)
    assert first.conductor.roots == 2
    await second.hear()
    await until(lambda: second.worker.begun == 2)
    assert (first.conductor.roots, second.conductor.roots) == (2, 2)
    assert await first.rows("SELECT count(*) FROM runs WHERE state = 'running'") == [(4,)]


async def test_what_the_others_do_not_take_is_taken_after_a_short_while(join: Open) -> None:
    first, _ = await join("first", limit=4), await join("second", limit=4)
    await first.look()
    for _ in range(8):
        await first.submit()
    await until(lambda: first.worker.begun == 2)
    first.conductor.timers.after(0.01, lambda: None)  # to have the alarms look at the clock
    first.clock.at += YIELD_S
    await until(lambda: first.worker.begun == 4)
    assert first.conductor.roots == 4


async def declined(join: Open, database: Path) -> tuple[Member, Member, str]:
    """A server with the agent that a run needs, and one without, which claimed it first and has given it up."""
    able, other = await join("able"), await join("other", tool="play")
    await able.look()
    async with FlowService(FlowSettings(database=database), agents=[Worker("work")], drive=False) as guest:
        run_id = (await guest.execute_flow(workflow_def=HOLD)).run_id
    await other.hear()
    await until(lambda: other.conductor.handover.declined == [run_id])
    await other.look()
    await other.look()
    assert await able.owner(run_id) == (None, 1)
    return able, other, run_id


async def test_a_run_that_no_agent_of_its_server_can_serve_is_left_to_one_that_can(join: Open, database: Path) -> None:
    able, other, run_id = await declined(join, database)
    await able.look()
    assert (await able.owner(run_id))[0] == able.id
    await other.look()
    able.worker.opened.set()
    assert await able.ends(run_id) == "completed"
    assert await able.rows("SELECT attempts, interruptions FROM tasks") == [(1, 0)]
    assert (await able.service.verify()).ok


async def test_a_run_that_was_given_up_is_taken_again_to_be_cancelled(join: Open, database: Path) -> None:
    _, other, run_id = await declined(join, database)
    await other.service.control(run_id, "cancel")
    await other.look()
    assert await other.ends(run_id) == "cancelled"


async def test_a_run_that_was_given_up_is_taken_again_when_its_agent_comes(join: Open, database: Path) -> None:
    _, other, run_id = await declined(join, database)
    worker = Worker("work")
    worker.name = "another"
    worker.opened.set()
    other.service.add_agents([worker])
    await other.look()
    assert await other.ends(run_id) == "completed"


async def test_a_run_that_waits_in_vain_goes_to_a_server_that_comes(join: Open, database: Path) -> None:
    other = await join("other", tool="play")
    async with FlowService(FlowSettings(database=database), agents=[Worker("work")], drive=False) as guest:
        run_id = (await guest.execute_flow(workflow_def=HOLD)).run_id
    await other.hear()
    await until(lambda: run_id in other.conductor.executions)
    able = await join("able")
    able.worker.opened.set()
    await other.look()
    await until(lambda: other.conductor.handover.declined == [run_id])
    await other.look()
    await able.look()
    assert await able.ends(run_id) == "completed"


async def test_a_strategy_set_by_one_server_is_obeyed_by_all(join: Open) -> None:
    first, second = await join("first"), await join("second")
    await first.service.set_strategy("priority", max_concurrent_flows=3)
    await second.hear()
    view = await second.service.scheduler()
    assert (view.strategy, view.max_concurrent_flows) == ("priority", 3)


async def test_the_servers_that_live_are_told(join: Open) -> None:
    first = await join("first")
    assert (await first.service.agents()).note is None
    second = await join("second")
    await second.submit()
    await until(lambda: second.worker.begun)
    servers = (await first.service.scheduler()).servers
    assert [(server.holder, server.runs) for server in servers] == [("first", 0), ("second", 1)]
    assert "2 servers" in ((await first.service.agents()).note or "")


async def test_nothing_is_claimed_before_this_process_is_a_server(
    join: Open, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FlowService(FlowSettings(database=database), agents=[Worker("work")], drive=False) as guest:
        run_id = (await guest.execute_flow(workflow_def=HOLD)).run_id
    owners: list[str] = []

    def noted(tx: Any, **options: Any) -> Any:
        owners.append(options["owner"])
        return claim(tx, **options)

    monkeypatch.setattr(intake_module, "claim", noted)
    member = await join("first")
    await until(lambda: member.worker.begun)
    assert set(owners) == {member.id}
    assert (await member.owner(run_id))[0] == member.id


async def test_a_run_submitted_before_this_process_is_a_server_waits_until_it_is(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(database, "first")
    start = Leases.start

    async def late(leases: Leases) -> None:
        leases._conductor.intake._may_find = False  # as after a look that found the queue empty
        await member.submit()
        await start(leases)

    monkeypatch.setattr(Leases, "start", late)
    async with member.service:
        await until(lambda: member.worker.begun)
        assert await member.rows("SELECT owner, fence FROM runs") == [(member.id, 1)]
        assert await member.rows("SELECT attempts, interruptions FROM tasks") == [(1, 0)]


async def test_nobody_may_own_a_run(store: Store) -> None:
    assert not await store.write(lambda tx: tx.may_own(""))
    assert await store.write(partial(take_over, owner="", at=1.0)) == []
    store.own_as("srv_lapsed")
    assert not await store.write(lambda tx: tx.may_own(""))


async def hopeless(first: Member, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that its server has tried to drive as often as it may, and has given back."""
    monkeypatch.setattr(conductor_module, "TAKE_BACK_S", 0.0)
    move_on = RunExecution._move_on

    def defective(execution: RunExecution, draft: Any) -> None:
        if execution.host is first.conductor:
            raise RuntimeError("a defect")
        move_on(execution, draft)

    run_id = await first.submit()
    await until(lambda: first.worker.begun)
    monkeypatch.setattr(RunExecution, "_move_on", defective)
    first.conductor.executions[run_id].poke()
    with anyio.fail_after(30):
        while (await first.owner(run_id))[0] is not None:
            await anyio.lowlevel.checkpoint()
    return run_id


async def test_a_run_that_a_server_fails_to_drive_again_and_again_is_given_back_and_not_taken_again(
    join: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = await join("first")
    run_id = await hopeless(first, monkeypatch)
    assert await first.owner(run_id) == (None, 1 + MAX_TAKE_BACKS)
    assert [record.message for record in caplog.records if f"{run_id} was begun anew" in record.message]
    await first.service.control(run_id, "cancel")  # not even for that: it would turn for ever
    for _ in range(3):
        await first.look(after=YIELD_S)
    assert await first.owner(run_id) == (None, 1 + MAX_TAKE_BACKS)
    assert first.conductor.executions == {}
    assert first.conductor.roots == 0


async def test_a_run_that_one_server_fails_to_drive_is_taken_by_another(
    join: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await join("first"), await join("second")
    run_id = await hopeless(first, monkeypatch)
    await second.look()
    assert (await second.owner(run_id))[0] == second.id
    second.worker.opened.set()
    assert await second.ends(run_id) == "completed"
    assert (await second.service.verify()).ok


async def test_a_server_that_stops_while_it_begins_anew_leaves_no_row(
    join: Open, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "LOOK_S", 0.001)  # so short that its clock wakes it
    first, second = Member(database, "first"), await join("second")
    joining, may_join = Event(), Event()

    def held_up(*arguments: Any, **options: Any) -> Any:
        joining.set()
        may_join.wait(60)
        return become_server(*arguments, **options)

    async with first.service:
        monkeypatch.setattr(leases_module, "join", held_up)
        await second.service._store.write(lambda tx: tx.execute("DELETE FROM servers WHERE server_id = ?", (first.id,)))
        keeping = first.conductor._keeping
        assert keeping is not None
        first.clock.at += BEAT_S
        await until(joining.is_set)
        async with anyio.create_task_group() as group:
            group.start_soon(first.service.__aexit__, None, None, None)
            await until(keeping.done)
            may_join.set()
    assert await second.servers() == {second.id}


async def test_a_server_that_began_anew_looks_at_the_queue_though_its_first_look_at_the_others_failed(
    join: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = await silent(join)
    second.conductor.is_stopping = True  # it takes nothing
    await first.submit()
    settle = Leases._settle

    async def failing(*_: Any) -> None:
        raise StoreError("The disk failed.")

    begun = first.worker.begun
    monkeypatch.setattr(Leases, "_settle", failing)
    with pytest.raises(StoreError):
        await first.look()
    monkeypatch.setattr(Leases, "_settle", settle)
    await until(lambda: not first.conductor.intake.is_claiming)
    first.conductor.intake._may_find = False
    await first.look()
    await until(lambda: first.worker.begun == begun + 1)
    second.conductor.is_stopping = False


async def test_a_look_at_the_others_that_fails_is_taken_again(
    join: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await join("first"), await join("second")
    await second.look()
    assert set(second.conductor.leases._peers) == {first.id}
    failed, looked = anyio.Event(), anyio.Event()

    def is_held(*_: Any) -> bool:
        if failed.is_set():
            looked.set()
            return True
        failed.set()
        raise OSError("The disk failed.")

    monkeypatch.setattr(leases_module, "is_held", is_held)
    monkeypatch.setattr(second.clock, "sleep", lambda _: anyio.lowlevel.checkpoint())
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(second.conductor.leases.keep)
            await looked.wait()
            group.cancel_scope.cancel()
    assert "The disk failed." in caplog.text
