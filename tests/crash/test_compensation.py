"""Killed in the middle of undoing: what was undone stays so, the rest is undone in the same order, and once recorded
never again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lives, World
from .flows import SOON, stage, wait, work

EVERY = os.environ.get("CONTEXTEN_CHAOS") == "full"
ONCE = {"max_attempts": 1}

SAGA = {
    "stages": [
        stage(
            "trip",
            work("book", does={"value": 7}),
            work("rent", retry=ONCE, does={"failures": 9}, on_failure=[work("walk")]),
            work(
                "pay",
                depends_on=["book", "rent"],
                when="tasks.rent.state == 'failed'",
                retry=ONCE,
                does={"failures": 9},
            ),
            mode="parallel",
        )
    ],
    "on_failure": [
        work(
            "unbook", retry=SOON | {"max_attempts": 3}, does={"failures": 1, "value": "{{ tasks.book.output.value }}"}
        ),
        wait("breathe", 0.08),
        work("tell", for_each=["{{ 'a' }}", "b"], max_parallel=1, does={"value": "{{ failure.task }}"}),
        work("close", retry=ONCE, does={"failures": 9}),
        work("last"),
    ],
}
STATES = {
    "book": "completed",
    "rent": "failed",
    "pay": "failed",
    "walk": "completed",
    "unbook": "completed",
    "breathe": "completed",
    "tell": "completed",
    "close": "failed",
    "last": "completed",
}
ORDER = ["walk", "unbook", "tell", "close", "last"]
PROGRAM: list[list[Any]] = [["create", "saga", SAGA], ["execute", "saga", "once"]]

CACHED = {"stages": [stage("s", work("get", does={"value": 1}, cache={"key": "k", "ttl_s": 3600}), work("use"))]}


def check_the_end(world: World) -> None:
    assert world.states("saga") == ["failed"]
    assert {key[1]: row[0] for key, row in world.tasks().items() if key[2] == -1} == STATES
    begun = list(dict.fromkeys(key[1] for key, _ in world.effects()))
    assert [task for task in begun if task in ORDER] == ORDER
    ((error, failed),) = world.rows("SELECT json_extract(error, '$.task'), failed_tasks FROM runs")
    assert (error, failed) == ("rent", '["rent", "pay", "close"]')


def points(lives: Lives, folder: Path, what: str) -> list[tuple[int, str]]:
    world = World(lives, folder)
    life = world.live(*PROGRAM, ["finish"], ["verify"])
    assert life.status == 0, world.log()
    check_the_end(world)
    every = [(number, side) for number in range(1, life.counts[what] + 1) for side in ("before", "after")]
    return every if EVERY else every[6::3]


@pytest.mark.parametrize("what", ["commit", "effect"])
def test_a_kill_while_undoing_loses_nothing_and_repeats_nothing_recorded(
    lives: Lives, tmp_path: Path, what: str
) -> None:
    for number, side in points(lives, tmp_path / "whole", what):
        world = World(lives, tmp_path / f"{number}-{side}")
        life = world.live(*PROGRAM, ["finish"], kill={"at": what, "number": number, "side": side})
        if not life.was_killed:
            continue
        world.live(*PROGRAM)
        world.run_to_the_end()
        check_the_end(world)


def test_an_orderly_stop_while_undoing_goes_on_where_it_was(world: World) -> None:
    world.live(*PROGRAM, ["begun", "close"], held=["close"])
    world.run_to_the_end()
    check_the_end(world)
    assert [world.times_done(task) for task in ("walk", "unbook", "tell", "last")] == [1, 2, 2, 1]


def test_a_kill_around_the_commit_of_a_cached_output_keeps_both_or_neither(lives: Lives, tmp_path: Path) -> None:
    for number in range(1, 11):
        for side in ("before", "after"):
            world = World(lives, tmp_path / f"{number}-{side}")
            program: list[list[Any]] = [
                ["create", "c", CACHED],
                ["execute", "c", "one"],
                ["finish"],
                ["execute", "c", "two"],
                ["finish"],
            ]
            world.live(*program, kill={"at": "commit", "number": number, "side": side})
            world.live(*program)
            world.run_to_the_end()
            assert world.states("c") == ["completed", "completed"]
            recorded = world.rows("SELECT attempts FROM tasks WHERE task = 'get' ORDER BY attempts")
            assert recorded[0] == (0,), "the second run was not served"
            assert len(world.rows("SELECT 1 FROM cache")) == 1
