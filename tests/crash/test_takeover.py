"""A server that is killed is replaced at once; one that is stopped for longer than its lease, when that is over."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import World
from .flows import stage, work
from .herd import Server, no_writes

FLOW = {"stages": [stage("s", work("first"), work("held", does={"lasts_s": 3}), work("behind"))]}
LONG_LEASE_S = 600.0  # nothing lapses meanwhile
SHORT_LEASE_S = 4.0  # longer than a loaded machine keeps a process from running


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    pair = Server("first"), Server("second")
    try:
        yield pair
    finally:
        for server in pair:
            server.close()


def test_the_runs_of_a_killed_server_go_on_at_once_in_another(world: World, servers: tuple[Server, Server]) -> None:
    first, second = servers
    first.start(
        world, [["create", "f", FLOW], ["execute", "f"], ["begun", "held"], ["stay"]],
        held=["held"], lease_ttl_s=LONG_LEASE_S,
    )  # fmt: skip
    first.until(lambda: first.said("begun"))
    second.start(world, [["reachable"], ["finish"], ["verify"]], lease_ttl_s=LONG_LEASE_S)
    second.until(lambda: second.said("reachable"))
    assert world.times_done("held") == 1
    first.send(signal.SIGKILL)
    second.until(lambda: not second.lives)  # long before the lease is over
    assert second.status == 0
    assert second.said("verified") == [True]
    assert world.states("f") == ["completed"]
    assert world.task("held")[:3] == ("completed", 2, 1)
    assert [world.times_done(task) for task in ("first", "held", "behind")] == [1, 2, 1]


def test_a_server_stopped_beyond_its_lease_writes_nothing_over_its_successor(
    world: World, servers: tuple[Server, Server]
) -> None:
    first, second = servers
    program = [
        ["create", "f", FLOW],
        ["execute", "f"],
        ["begun", "held"],
        ["reborn"],
        ["execute", "f"],
        ["finish"],
        ["verify"],
    ]
    first.start(world, program, lease_ttl_s=SHORT_LEASE_S)
    first.until(lambda: first.said("settled"))
    with no_writes(world.database):
        first.send(signal.SIGSTOP)
    assert world.task("held")[0] == "running"
    second.start(world, [["finish"], ["verify"]], lease_ttl_s=SHORT_LEASE_S)
    second.until(lambda: not second.lives)
    assert (second.status, second.said("verified")) == (0, [True])
    assert world.states("f") == ["completed"]
    (before,) = world.rows("SELECT * FROM runs")
    tasks = world.tasks()
    first.send(signal.SIGCONT)  # its attempt ends at once, and is to be recorded
    first.until(lambda: not first.lives)
    assert (first.status, first.said("reborn"), first.said("verified")) == (0, [True], [True])
    assert world.rows("SELECT * FROM runs ORDER BY seq")[0] == before
    assert {key: row for key, row in world.tasks().items() if key in tasks} == tasks
    assert world.states("f") == ["completed", "completed"]  # its next one, too
    assert [world.times_done(task) for task in ("first", "held", "behind")] == [2, 3, 2]
    assert _lost(world) == [(f"it was silent for {SHORT_LEASE_S:g} s",)]


def _lost(world: World) -> list[tuple[str, ...]]:
    return world.rows("SELECT data ->> 'reason' FROM events WHERE type = 'server.lost'")


def test_what_a_process_leaves_beside_the_database_is_cleared_away(
    world: World, servers: tuple[Server, Server]
) -> None:
    first, second = servers
    first.start(world, [["create", "f", FLOW], ["reachable"], ["stay"]])
    first.until(lambda: first.said("reachable"))
    first.send(signal.SIGKILL)
    first.until(lambda: not first.lives)
    assert _locks(world.folder)
    second.start(world, [["create", "f", FLOW]])
    second.until(lambda: not second.lives)
    assert second.status == 0
    assert _locks(world.folder) == []
    assert world.rows("SELECT * FROM servers") == []


def _locks(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".srv_" in path.name]
