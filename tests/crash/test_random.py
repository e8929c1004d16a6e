"""Killed at any moment, again and again on one database, with new work in each life."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from .conftest import Lives, World
from .flows import CHILD, MIXED, MIXED_OUTPUT, MIXED_STATES, MIXED_TRIES

IS_FULL = os.environ.get("CONTEXTEN_CHAOS") == "full"
"""`make chaos`: many more rounds, another seed each time."""

DATABASES = 20 if IS_FULL else 2
ROUNDS = 50 if IS_FULL else 8
RUNS_A_ROUND = 3
LONGEST_S = 0.25  # of a life; to run three flows undisturbed takes about as long


def test_random_kills_lose_nothing_and_repeat_nothing_recorded(lives: Lives, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if IS_FULL else 20
    for number in range(DATABASES):
        chance = random.Random(f"{seed} {number}")
        world = World(lives, tmp_path / str(number))
        killed = 0
        for round_ in range(ROUNDS):
            work = [["execute", "mixed", f"{round_}-{n}"] for n in range(RUNS_A_ROUND)]
            program: list[list[Any]] = [["create", "child", CHILD], ["create", "mixed", MIXED], *work, ["finish"]]
            life = world.live(*program, kill_after_s=chance.uniform(0, LONGEST_S), max_interruptions=1000)
            killed += life.was_killed
        assert killed, "no life was cut short: this proved nothing"
        world.run_to_the_end(max_interruptions=1000)
        _check_the_end(world)


def _check_the_end(world: World) -> None:
    runs = world.runs()
    assert {state for _, state in runs.values()} <= {"completed"}
    outputs = world.outputs("mixed")
    assert len(outputs) >= len(set(world.acknowledged))
    assert all(output == MIXED_OUTPUT for output in outputs)
    for (run_id, task, item), (state, *_) in world.tasks().items():
        if runs[run_id][0] == "mixed" and item == -1:
            assert state == MIXED_STATES[task]
    for (_, task, item), number in world.effects():
        assert 1 <= number <= MIXED_TRIES.get(task, 1), f"{task}[{item}] had attempt number {number}"
