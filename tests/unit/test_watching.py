"""Who hears of commits."""

from __future__ import annotations

import logging

import anyio
import pytest

from contexten.extensions.flow.live.watching import Change, Watchers, changes_of
from contexten.extensions.flow.store import Event

pytestmark = pytest.mark.anyio


def event(seq: int, type_: str, run_id: str | None = "run_1", flow_id: str | None = "flow") -> Event:
    return Event(seq, run_id, flow_id, type_, None, None, None, 0.0, None, None)


def change(run_id: str = "run_1", state: str | None = None) -> Change:
    return Change(run_id=run_id, flow_id="flow", state=state, types=("task.completed",), cursor="c")


def test_the_events_of_a_commit_are_gathered_by_run() -> None:
    events = [
        event(1, "run.scheduled"),
        event(2, "run.scheduled", "run_2"),
        event(3, "run.running"),
        event(4, "task.running"),
        event(5, "flow.created", None),
    ]
    changes = changes_of(events, lambda seq: f"c{seq}")
    assert [(c.run_id, c.state, c.types, c.cursor) for c in changes] == [
        ("run_1", "running", ("run.scheduled", "run.running", "task.running"), "c4"),
        ("run_2", "scheduled", ("run.scheduled",), "c2"),
        (None, None, ("flow.created",), "c5"),
    ]


def test_what_is_no_state_of_a_run_leaves_its_state_open() -> None:
    (only,) = changes_of([event(1, "run.lease_taken"), event(2, "task.completed")], str)
    assert only.state is None


async def test_a_change_between_two_waits_is_not_lost() -> None:
    watchers = Watchers()
    with watchers.watch("run_1") as watch, anyio.fail_after(30):
        watchers.announce([change()])
        await watch.wait()
        watchers.announce([change()])
        await watch.wait()


async def test_a_watch_does_not_wake_for_other_runs() -> None:
    watchers = Watchers()
    with watchers.watch("run_1") as watch:
        watchers.announce([change("run_2")])
        with anyio.move_on_after(0) as scope:
            await watch.wait()
        assert scope.cancelled_caught


async def test_closing_wakes_everybody() -> None:
    watchers = Watchers()
    with watchers.watch("run_1") as one, watchers.watch("run_2") as two, anyio.fail_after(30):
        watchers.close()
        await one.wait()
        await two.wait()


def test_nothing_is_left_of_a_watch_or_a_subscription_that_ended() -> None:
    watchers = Watchers()
    heard: list[Change] = []
    stop = watchers.subscribe(heard.append)
    with watchers.watch("run_1"), watchers.watch("run_1"):
        pass
    watchers.announce([change()])
    stop()
    stop()
    watchers.announce([change()])
    assert len(heard) == 1
    assert watchers._watches == {}
    assert watchers._listeners == {}


def test_a_subscriber_that_raises_keeps_no_other_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    watchers = Watchers()
    heard: list[Change] = []

    def broken(_: Change) -> None:
        raise ValueError("deaf")

    watchers.subscribe(broken)
    watchers.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        watchers.announce([change()])
    assert len(heard) == 1
    assert "a subscriber raised" in caplog.text


def test_a_subscriber_may_stop_while_it_is_told() -> None:
    watchers = Watchers()
    stops = [watchers.subscribe(lambda _: stops[0]()), watchers.subscribe(lambda _: None)]
    watchers.announce([change()])
    watchers.announce([change()])
    assert len(watchers._listeners) == 1
