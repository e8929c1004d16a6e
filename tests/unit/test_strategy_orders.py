"""Each strategy decides as its docstring says, with real runs in few slots."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest

from contexten.extensions.flow import FlowScheduler, FlowService, FlowSettings, SchedulingStrategy
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.views import RunView

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, EndOf, FakeClock, Turnstile

pytestmark = pytest.mark.anyio


def turn(**fields: Any) -> dict[str, Any]:
    task = {"name": "turn", "type": "t", "required_tools": ["turn"], "retry": {"max_attempts": 1}, **fields}
    return {"stages": [{"name": "only", "tasks": [task]}]}


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The machine's load in percent, as the tests set it; the machine itself is shared with others."""
    load = [0.0]
    monkeypatch.setattr(psutil, "cpu_percent", lambda: load[0])
    return load


def slots(settings: FlowSettings, number: int, strategy: str, **fields: Any) -> FlowSettings:
    return settings.model_copy(update={"max_concurrent_flows": number, "strategy": strategy, **fields})


async def submit(flows: FlowService, flow: dict[str, Any] | None = None, **request: Any) -> str:
    return (await flows.execute_flow(workflow_def=flow or turn(), **request)).run_id


async def ended(flows: FlowService, end_of: EndOf, *runs: str) -> list[RunView]:
    return [await end_of(flows, run_id) for run_id in runs]


@pytest.fixture
async def learned(clock: FakeClock, turnstile: Turnstile) -> Any:
    """Lets the service learn how long a flow takes."""

    async def learn(flows: FlowService, end_of: EndOf, flow_id: str, seconds: float, **fields: Any) -> None:
        await flows.create_flow(flow_id=flow_id, workflow_def=turn(**fields))
        for _ in range(3):
            run = await flows.execute_flow(flow_id=flow_id)
            await turnstile.has_come(len(turnstile.came) or 1)
            while turnstile.came[-1:] != [run.run_id]:
                await turnstile.has_come(len(turnstile.came) + 1)
            await clock.advance(seconds)
            turnstile.let_through(run.run_id)
            await end_of(flows, run.run_id)

    return learn


async def test_fifo_goes_by_arrival_whatever_is_urgent(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(slots(settings, 1, "fifo")) as flows:
        runs = [await submit(flows, priority=priority, deadline=60 - priority) for priority in (4, 0, 2)]
        turnstile.open()
        await ended(flows, end_of, *runs)
    assert turnstile.came == runs


@pytest.mark.parametrize(  # low stands two levels of 60 s behind high
    "case", list(product(["priority", "load_balanced", "resource_aware"], [119, 121]))
)
async def test_by_priority_waiting_raises_a_run_a_level_each_interval(
    settings: FlowSettings,
    clock: FakeClock,
    driven: Driven,
    turnstile: Turnstile,
    end_of: EndOf,
    case: tuple[str, float],
) -> None:
    strategy, waited_s = case
    one = slots(settings, 1, strategy, aging_interval_s=60)
    async with driven(one, clock=clock) as flows:
        first = await submit(flows)
        await turnstile.has_come(1)
        low = await submit(flows, priority="low")
        await clock.advance(waited_s)
        high = await submit(flows, priority="high")
        turnstile.open()
        await ended(flows, end_of, first, low, high)
    assert turnstile.came == ([first, high, low] if waited_s < 120 else [first, low, high])


async def test_by_deadline_the_least_slack_is_first_and_the_undated_are_last(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf, learned: Any
) -> None:
    one = slots(settings, 1, "deadline_aware")
    async with driven(one, clock=clock) as flows:
        await learned(flows, end_of, "long", 100)
        before = len(turnstile.came)
        first = await submit(flows)
        await turnstile.has_come(before + 1)
        undated = await submit(flows, priority="critical")
        late = await submit(flows, deadline=300)
        soon = await submit(flows, deadline=200)
        long = (await flows.execute_flow(flow_id="long", deadline=250)).run_id  # must start within 150 s
        assert (await flows.scheduler()).next_runs == [long, soon, late, undated]
        turnstile.open()
        await ended(flows, end_of, first, undated, late, soon, long)
    assert turnstile.came[before:] == [first, long, soon, late, undated]


async def test_deadlines_count_for_runs_that_were_queued_under_another_strategy(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(slots(settings, 1, "fifo")) as flows:
        await submit(flows)
        late, soon = await submit(flows, deadline=300), await submit(flows, deadline=200)
        assert (await flows.scheduler()).next_runs == [late, soon]
        await flows.set_strategy("deadline_aware")
        assert (await flows.scheduler()).next_runs == [soon, late]
        turnstile.open()


async def test_a_run_passes_a_blocked_one_only_where_it_does_not_delay_it(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf, learned: Any
) -> None:
    many = slots(settings, 10, "resource_aware", pools={"gpu": 2.0})
    async with driven(many, clock=clock) as flows:
        await learned(flows, end_of, "holder", 100, resources={"gpu": 1})
        await learned(flows, end_of, "short", 5, resources={"gpu": 1})
        await learned(flows, end_of, "aside", 500)
        before = len(turnstile.came)
        holder = (await flows.execute_flow(flow_id="holder")).run_id
        await turnstile.has_come(before + 1)
        big = await submit(flows, turn(resources={"gpu": 2}))  # reserved for when the holder ends, in 100 s
        await clock.advance(10)
        long = (await flows.execute_flow(flow_id="holder")).run_id  # would end 10 s after that
        unknown = await submit(flows, turn(resources={"gpu": 1}))
        short = (await flows.execute_flow(flow_id="short")).run_id
        aside = (await flows.execute_flow(flow_id="aside")).run_id  # needs nothing of the pool
        assert set((await turnstile.has_come(before + 3))[before:]) == {holder, short, aside}
        why = await flows.explain(run_id=big)
        assert why.waiting_for is not None
        assert "2 of pool 'gpu'" in why.waiting_for[0]
        assert holder in why.waiting_for[0]
        turnstile.let_through(short)
        turnstile.let_through(holder)
        assert (await turnstile.has_come(before + 4))[-1] == big
        turnstile.open()
        await ended(flows, end_of, big, long, unknown, aside)


async def test_in_strict_order_none_passes_a_run_that_waits_for_a_pool(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    many = slots(settings, 10, "priority", pools={"gpu": 2.0})
    async with driven(many) as flows:
        holder = await submit(flows, turn(resources={"gpu": 1}))
        await turnstile.has_come(1)
        big, small = await submit(flows, turn(resources={"gpu": 2})), await submit(flows)
        why = await flows.explain(run_id=small)
        assert why.waiting_for == ["those before it in the queue"]
        turnstile.let_through(holder)
        await turnstile.has_come(2)
        turnstile.open()
        await ended(flows, end_of, big, small)
    assert turnstile.came == [holder, big, small]


async def test_places_of_agents_bound_what_is_admitted(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    turnstile.capacity = 2
    async with driven(slots(settings, 10, "resource_aware")) as flows:
        runs = [await submit(flows) for _ in range(4)]
        await turnstile.has_come(2)
        assert (await flows.scheduler()).queued == 2
        why = await flows.explain(run_id=runs[2])
        assert why.waiting_for is not None
        assert "1 place of agent 'turnstile' (it has 2" in why.waiting_for[0]
        turnstile.open()
        await ended(flows, end_of, *runs)


async def test_a_loaded_machine_starts_nothing_more_until_its_load_falls(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf, idle: list[float]
) -> None:
    idle[0] = 95.0
    async with driven(slots(settings, 10, "resource_aware"), clock=clock) as flows:
        first, second = await submit(flows), await submit(flows)
        assert await turnstile.has_come(1) == [first]  # nothing ran, so that one may
        await clock.advance(5)
        assert (await flows.get_run(second)).state == "scheduled"
        idle[0] = 50.0
        with anyio.fail_after(30):
            while len(turnstile.came) < 2:
                await clock.advance(0.5)
        turnstile.open()
        await ended(flows, end_of, first, second)
    assert turnstile.came == [first, second]


class Placed:
    """Agents of one kind that hold their tasks, and tell which took which."""

    def __init__(self) -> None:
        self.took: list[tuple[str, str]] = []
        self.opened = anyio.Event()

    def agent(self, name: str, capacity: int) -> Any:
        placed = self

        class Agent:
            agent_type = "worker"
            tools = ("work",)

            async def run(self, task: TaskCall, context: AttemptContext) -> None:
                placed.took.append((task.name, name))
                await placed.opened.wait()

        agent = Agent()
        agent.name, agent.capacity = name, capacity  # type: ignore[attr-defined]  # what the protocol asks for
        return agent


def work(*complexities: int) -> dict[str, Any]:
    tasks = [
        {"name": f"t{place}", "type": "work", "required_tools": ["work"], "complexity": complexity}
        for place, complexity in enumerate(complexities)
    ]
    return {"stages": [{"name": "only", "execution_mode": "parallel", "tasks": tasks}]}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("fifo", ["small", "small", "large", "large"]),  # the first with a free place
        ("load_balanced", ["small", "large", "large", "small"]),  # 5/2 and 0; 5/2 and 2/4; 5/2 and 12/4
    ],
)
async def test_load_balanced_puts_each_task_where_there_is_least_to_do(
    settings: FlowSettings, end_of: EndOf, strategy: str, expected: list[str]
) -> None:
    placed = Placed()
    agents = [placed.agent("small", 2), placed.agent("large", 4)]
    async with FlowService(settings.model_copy(update={"strategy": strategy}), agents=agents) as flows:
        run_id = await submit(flows, work(5, 2, 10, 1))
        with anyio.fail_after(30):
            while len(placed.took) < 4:
                await anyio.lowlevel.checkpoint()
        placed.opened.set()
        await end_of(flows, run_id)
    assert dict(placed.took) == {f"t{place}": name for place, name in enumerate(expected)}


async def test_a_scheduler_balances_load_under_every_strategy_unless_told_not_to(settings: FlowSettings) -> None:
    for balances, expected in ((True, {"t0": "one", "t1": "two"}), (False, {"t0": "one", "t1": "one"})):
        placed = Placed()
        agents = [placed.agent("one", 2), placed.agent("two", 2)]
        fresh = settings.model_copy(update={"database": settings.database.with_name(f"{balances}.sqlite3")})
        async with FlowScheduler(agents=agents, enable_load_balancing=balances, settings=fresh) as scheduler:
            run = await scheduler.schedule_flow(workflow_def=work(1, 1))
            service = await scheduler.service()
            with anyio.fail_after(30):
                while len(placed.took) < 2:
                    await anyio.lowlevel.checkpoint()
                placed.opened.set()
                await service.wait(run["run_id"])
        assert dict(placed.took) == expected


async def test_switching_while_200_runs_are_queued_loses_and_repeats_none(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    few = slots(settings, 3, "fifo", durability="process", pools={"gpu": 2.0}, stop_grace_s=0.0)
    names = list(SchedulingStrategy)
    async with driven(few) as flows:
        await flows.create_flow(flow_id="plain", workflow_def=turn())
        await flows.create_flow(flow_id="gpu", workflow_def=turn(resources={"gpu": 1}))
        runs = [
            (
                await flows.execute_flow(
                    flow_id="gpu" if number % 3 == 0 else "plain",
                    priority=number % 5,
                    deadline=600 + number * 7 % 100 if number % 4 == 0 else None,
                )
            ).run_id
            for number in range(200)
        ]
        await turnstile.has_come(3)
        for step, name in enumerate([*names, *reversed(names)]):
            change = await flows.set_strategy(name)
            assert change.after.strategy == name
            scheduler = await flows.scheduler()
            assert scheduler.running + scheduler.queued + step * 4 == 200
            for gone in range(step * 4, step * 4 + 4):  # some go on in between
                turnstile.let_through(turnstile.came[gone])
                await end_of(flows, turnstile.came[gone])
                await turnstile.has_come(gone + 4)
        await flows.set_strategy("deadline_aware")
        changes = [event for event in await flows.events(limit=5000) if event.type == "scheduler.changed"]
        chosen = [change.details["strategy"] for change in changes if change.details and "strategy" in change.details]
        assert chosen == [
            *names,
            *reversed(names),
            "deadline_aware",
        ]
        came = list(turnstile.came)
        order = (await flows.scheduler()).next_runs
    turnstile.open()
    async with driven(few) as flows:
        scheduler = await flows.scheduler()
        assert scheduler.strategy == "deadline_aware"
        assert all(run.state == "completed" for run in await ended(flows, end_of, *runs))
        assert (await flows.verify()).problems == []
        events = await flows.events(limit=5000)
    again = turnstile.came[len(came) :]
    assert [run_id for run_id in again if run_id not in came][: len(order)] == order
    assert sorted(set(turnstile.came)) == sorted(runs)
    assert len(again) == 200 - len(came) + 3  # the three that the restart cut off began anew
    for kind in ("run.completed", "task.completed"):
        assert len({event.run_id for event in events if event.type == kind}) == 200
        assert sum(event.type == kind for event in events) == 200
