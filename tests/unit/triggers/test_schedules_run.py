"""Schedules fire at their times, once, whatever became of the servers meanwhile."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.store.triggers import NewDelivery
from contexten.extensions.flow.triggers import clockwork
from contexten.extensions.flow.triggers.clockwork import LOOK_S

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, FakeClock, Turnstile

    from contexten.extensions.flow.triggers.views import DeliveryView

pytestmark = pytest.mark.anyio

NOTE: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "note", "type": "note"}]}]}
TURN: dict[str, Any] = {
    "stages": [
        {
            "name": "only",
            "tasks": [{"name": "turn", "type": "t", "required_tools": ["turn"], "retry": {"max_attempts": 1}}],
        }
    ]
}


async def schedule(flows: FlowService, flow: dict[str, Any] = NOTE, *, kind: str = "interval", **config: Any) -> None:
    """A trigger `timer`, every six seconds where nothing else is said."""
    await flows.create_flow(workflow_def=flow, flow_id="target")
    config = config if "every_s" in config or kind != "interval" else {"every_s": 6, **config}
    await flows.triggers.create(flow_id="target", kind=kind, config=config, trigger_id="timer", actor=PYTHON)


async def ticks(
    flows: FlowService, number: int, *, settled: bool = True, other: FlowService | None = None
) -> list[DeliveryView]:
    """Wait until so many ticks are there, and something has become of them; oldest first."""
    news = anyio.Event()
    stops = [server.subscribe(lambda _: news.set()) for server in (flows, other or flows)]
    try:
        with anyio.fail_after(30):
            while True:
                found = (await flows.triggers.deliveries("timer", limit=200)).deliveries[::-1]
                if len(found) >= number and not (settled and any(tick.state == "accepted" for tick in found)):
                    return found
                await news.wait()
                news = anyio.Event()
    finally:
        for stop in stops:
            stop()


async def passes(flows: FlowService, clock: FakeClock) -> None:
    """Let time pass up to the next planned time."""
    next_at = (await flows.triggers.get("timer")).next_at
    assert next_at is not None
    await anyio.wait_all_tasks_blocked()  # a clockwork sleeps, or is about to look at the clock
    await clock.advance(datetime.fromisoformat(next_at).timestamp() - clock.timestamp())


def planned(found: list[DeliveryView]) -> list[str]:
    return [tick.event_id[11:19] for tick in found]


async def test_an_interval_fires_each_time_once(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await schedule(flows, overlap="allow")
        assert (await flows.triggers.get("timer")).next_at == "2030-01-01T00:00:06.000+00:00"
        for number in (1, 2, 3):
            await passes(flows, clock)
            await ticks(flows, number)
        found = await ticks(flows, 3)
        assert planned(found) == ["00:00:06", "00:00:12", "00:00:18"]
        assert {(tick.state, tick.type) for tick in found} == {("started", "tick")}
        tick = await flows.triggers.delivery(found[0].delivery_id)
        assert tick.payload == {"planned_at": "2030-01-01T00:00:06+00:00"}


async def test_two_servers_fire_a_schedule_once(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await schedule(flows, overlap="allow")
    async with FlowService(settings, clock=clock) as one, FlowService(settings, clock=clock) as two:
        for number in (1, 2):
            await passes(one, clock)
            await ticks(one, number, other=two)
        await anyio.wait_all_tasks_blocked()
        assert planned(await ticks(one, 2, other=two)) == ["00:00:06", "00:00:12"]


async def test_a_time_that_comes_once_fires_once(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await schedule(flows, kind="once", at="2030-01-01T00:00:30Z")
        await passes(flows, clock)
        assert planned(await ticks(flows, 1)) == ["00:00:30"]
        assert (await flows.triggers.get("timer")).next_at is None


@pytest.mark.parametrize(
    ("catch_up", "fired"),
    [("none", []), ("latest", ["05:00:30"]), ("all", [f"0{n // 6}:{n % 6}0:30" for n in range(31)])],
)
async def test_hours_without_a_server_are_caught_up_as_the_schedule_says(
    settings: FlowSettings, clock: FakeClock, catch_up: str, fired: list[str]
) -> None:
    config: dict[str, Any] = {
        "every_s": 600,
        "start_at": "2030-01-01T00:00:30Z",
        "catch_up": catch_up,
        "overlap": "allow",
    }
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await schedule(flows, **config)
    clock.wall = 5 * 3600 + 300
    async with FlowService(settings, clock=clock) as flows:
        with anyio.fail_after(30):
            while (await flows.triggers.get("timer")).next_at != "2030-01-01T05:10:30.000+00:00":
                await anyio.lowlevel.checkpoint()
        assert planned(await ticks(flows, len(fired))) == fired
        missed = [event.details for event in await flows.events(limit=1000) if event.type == "trigger.missed"]
        left_out = 31 - len(fired)
        assert missed == ([{"trigger_id": "timer", "missed": left_out}] if left_out else [])


async def test_a_tick_is_skipped_while_the_run_before_it_goes_on(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings, clock=clock) as flows:
        await schedule(flows, TURN)
        await passes(flows, clock)
        (first,) = await ticks(flows, 1)
        await passes(flows, clock)
        _, second = await ticks(flows, 2)
        assert (second.state, second.reason) == ("filtered", f"the run {first.run_id}, started before, has not ended")
        turnstile.let_through(first.run_id or "")
        with anyio.fail_after(30):
            await flows.wait(first.run_id or "")
        await passes(flows, clock)
        assert (await ticks(flows, 3))[2].state == "started"


async def test_a_tick_waits_in_a_queue_while_the_run_before_it_goes_on(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings, clock=clock) as flows:
        await schedule(flows, TURN, overlap="queue")
        await passes(flows, clock)
        (first,) = await ticks(flows, 1)
        await passes(flows, clock)
        _, second = await ticks(flows, 2, settled=False)
        assert second.state == "accepted"
        assert len(await turnstile.has_come(1)) == 1
        turnstile.let_through(first.run_id or "")
        assert (await ticks(flows, 2))[1].state == "started"


async def test_a_tick_cancels_the_run_before_it(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings, clock=clock) as flows:
        await schedule(flows, TURN, overlap="cancel_previous")
        await passes(flows, clock)
        (first,) = await ticks(flows, 1)
        await turnstile.has_come(1)
        await passes(flows, clock)
        assert (await ticks(flows, 2))[1].state == "started"
        with anyio.fail_after(30):
            run = await flows.wait(first.run_id or "")
        assert (run.state, run.reason) == ("cancelled", "its schedule fired again")


async def test_an_interval_that_is_disabled_fires_no_more_and_keeps_its_beat_when_enabled(
    settings: FlowSettings, clock: FakeClock
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await schedule(flows)
        await clock.advance(3)
        assert (await flows.triggers.update("timer", enabled=False, actor=PYTHON)).next_at is None
        await clock.advance(12)
        view = await flows.triggers.update("timer", enabled=True, actor=PYTHON)
        assert view.next_at == "2030-01-01T00:00:18.000+00:00"
        await passes(flows, clock)
        assert planned(await ticks(flows, 1)) == ["00:00:18"]


@pytest.mark.parametrize(
    ("before", "after", "next_at"),
    [
        ({"every_s": 60}, {"every_s": 60, "max_active": 2}, "00:03:00"),
        ({"every_s": 60}, {"every_s": 40}, "00:02:40"),
        ({"every_s": 60}, {"every_s": 3600}, "01:00:00"),
        ({"every_s": 60, "start_at": "2030-01-01T00:00:05Z"}, {"every_s": 60}, "00:03:00"),
        ({"every_s": 60}, {"every_s": 60, "start_at": "2030-01-01T00:00:05Z"}, "00:03:05"),
    ],
)
async def test_an_interval_keeps_the_beat_of_its_creation_over_changes(
    settings: FlowSettings, clock: FakeClock, before: dict[str, Any], after: dict[str, Any], next_at: str
) -> None:
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await schedule(flows, **before)
        await clock.advance(150)
        view = await flows.triggers.update("timer", config=after, actor=PYTHON)
        assert view.next_at == f"2030-01-01T{next_at}.000+00:00"
        assert view.config.get("start_at") == after.get("start_at")


async def test_a_clock_that_is_set_forward_is_noticed_within_a_minute(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await schedule(flows, every_s=86_400)
        await anyio.wait_all_tasks_blocked()
        clock.wall = 86_400
        with anyio.fail_after(30):
            while not (await flows.triggers.deliveries("timer")).deliveries:
                await clock.advance(LOOK_S)
        assert planned(await ticks(flows, 1)) == ["00:00:00"]


async def test_a_schedule_that_cannot_be_fired_holds_up_no_other_one_and_is_told_of_once(
    settings: FlowSettings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await schedule(flows, every_s=7, overlap="allow")
        for name in ("unreadable", "defective"):
            config = {"every_s": 6}
            await flows.triggers.create(
                flow_id="target", kind="interval", config=config, trigger_id=name, name=name, actor=PYTHON
            )
        await flows._store.write(
            lambda tx: tx.execute("UPDATE triggers SET config = '{\"no\": 1}' WHERE trigger_id = 'unreadable'")
        )

        def defective(**fields: Any) -> Any:
            if fields["trigger_id"] == "defective":
                raise ZeroDivisionError
            return NewDelivery(**fields)

        monkeypatch.setattr(clockwork, "NewDelivery", defective)
        with anyio.fail_after(30):
            while not (await flows.triggers.deliveries("timer")).deliveries:  # they are tried at 6 s and at 8 s
                await clock.advance(1)
        told = [record.getMessage() for record in caplog.records if record.name == clockwork.__name__]
        assert sorted(line.split(":")[0] for line in told) == [
            "the schedule defective cannot be fired",
            "the schedule unreadable cannot be read",
        ]


async def test_a_tick_over_the_rate_cancels_nothing_before_its_time(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings, clock=clock) as flows:
        await schedule(flows, TURN, overlap="cancel_previous", rate="1/1h")
        await passes(flows, clock)
        (first,) = await ticks(flows, 1)
        await turnstile.has_come(1)
        await passes(flows, clock)
        _, second = await ticks(flows, 2, settled=False)
        await anyio.wait_all_tasks_blocked()
        assert second.state == "accepted"
        assert (await flows.get_run(first.run_id or "")).state == "running"
