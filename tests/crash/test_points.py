"""Killed at each commit and each effect, before and after it: what was acknowledged is there, what was done stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lives, World
from .flows import CHILD, MIXED, MIXED_OUTPUT, MIXED_STATES, MIXED_TRIES

EVERY = os.environ.get("CONTEXTEN_CHAOS") == "full"
"""Every point, not the first ones and a sample of the rest: `make chaos`."""

PROGRAM: list[list[Any]] = [["create", "child", CHILD], ["create", "mixed", MIXED], ["execute", "mixed", "only-once"]]


def check_the_end(world: World) -> None:
    """The run is there once, with the right output, states and numbers of attempts."""
    assert world.states("mixed") == ["completed"]
    assert world.output("mixed") == MIXED_OUTPUT
    runs = {run_id: flow for run_id, (flow, _) in world.runs().items()}
    states = {key[1]: row[0] for key, row in world.tasks().items() if runs[key[0]] == "mixed" and key[2] == -1}
    assert states == MIXED_STATES
    for (_, task, item), number in world.effects():
        assert 1 <= number <= MIXED_TRIES.get(task, 1), f"{task}[{item}] had attempt number {number}"


def points(lives: Lives, folder: Path, what: str) -> int:
    """How many there are in a life that nobody cuts short."""
    world = World(lives, folder)
    life = world.live(*PROGRAM, ["finish"], ["verify"])
    assert life.status == 0, world.log()
    check_the_end(world)
    return life.counts[what]


def sweep(lives: Lives, folder: Path, what: str) -> list[tuple[int, str]]:
    total = points(lives, folder / "whole", what)
    every = [(number, side) for number in range(1, total + 1) for side in ("before", "after")]
    return every if EVERY else every[:8] + every[8::4]


@pytest.mark.parametrize("what", ["commit", "effect"])
def test_a_kill_at_any_point_loses_nothing_and_repeats_nothing_recorded(
    lives: Lives, tmp_path: Path, what: str
) -> None:
    for number, side in sweep(lives, tmp_path, what):
        world = World(lives, tmp_path / f"{number}-{side}")
        life = world.live(*PROGRAM, ["finish"], kill={"at": what, "number": number, "side": side})
        if not life.was_killed:  # groups fell otherwise: this life had fewer
            continue
        world.live(*PROGRAM)  # as a client does that saw no answer: the same requests again
        world.run_to_the_end()
        check_the_end(world)


def test_a_kill_while_another_recovers_counts_no_interruption_twice(lives: Lives, tmp_path: Path) -> None:
    """The second life is killed at each of its first commits, that of the takeover among them."""
    for number in range(1, 7):
        for side in ("before", "after"):
            world = World(lives, tmp_path / f"{number}-{side}")
            world.live(*PROGRAM, ["finish"], kill={"at": "effect", "number": 3, "side": "after"})
            world.live(["finish"], kill={"at": "commit", "number": number, "side": side})
            world.run_to_the_end()
            check_the_end(world)
            begun = {key: sum(1 for other, _ in world.effects() if other == key) for key, _ in world.effects()}
            for key, (_, attempts, interruptions, _) in world.tasks().items():
                assert attempts <= begun.get(key, 0) + 2, f"{key} has {attempts} attempts"
                assert interruptions <= 2, f"{key} has {interruptions} interruptions after two crashes"
