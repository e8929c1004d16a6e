"""How many runs one of several servers takes, and when it leaves the queue to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contexten.extensions.flow.execution.share import YIELD_S, Share


class Alarms:
    """Timers that ring when the test says so."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, callback: Callable[[], None]) -> Any:
        self.set.append((seconds, callback))
        return object()

    def ring(self) -> None:
        due, self.set = self.set, []
        for _, callback in due:
            callback()


@pytest.fixture
def alarms() -> Alarms:
    return Alarms()


def shared(alarms: Any, servers: int, on_turn: Callable[[], None] = lambda: None) -> Share:
    share = Share(alarms, on_turn)
    share.servers = servers
    return share


@pytest.mark.parametrize(
    ("servers", "slots", "held", "room"),
    [
        (1, 10, 0, 10),
        (1, 10, 9, 1),
        (1, 10, 10, 0),
        (2, 10, 0, 5),
        (2, 9, 3, 2),
        (3, 10, 3, 1),
        (3, 2, 0, 1),
        (9, 1, 0, 1),
    ],
)
def test_a_server_fills_its_share_at_once(alarms: Alarms, servers: int, slots: int, held: int, room: int) -> None:
    share = shared(alarms, servers)
    assert share.room(held, slots) == room
    assert share.has_room(held, slots) == (room > 0)
    assert alarms.set == []


def test_past_its_share_it_takes_the_rest_after_a_pause_and_pauses_again(alarms: Alarms) -> None:
    taken: list[int] = []
    share = shared(alarms, 2, lambda: taken.append(share.room(5, 10)))
    assert [share.room(5, 10) for _ in range(3)] == [0, 0, 0]
    assert [seconds for seconds, _ in alarms.set] == [YIELD_S]  # one pause, however often it asks
    alarms.ring()
    assert taken == [5]
    assert share.room(7, 10) == 0
    alarms.ring()
    assert taken == [5, 5]


def test_a_turn_that_found_nothing_is_not_kept_for_later(alarms: Alarms) -> None:
    share = shared(alarms, 2)
    assert share.room(5, 10) == 0
    alarms.ring()
    assert share.room(5, 10) == 0


def test_a_server_that_holds_all_slots_waits_for_none(alarms: Alarms) -> None:
    share = shared(alarms, 2)
    assert share.room(10, 10) == 0
    assert alarms.set == []
