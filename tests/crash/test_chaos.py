"""Three servers on one database under load, killed, stopped, continued and started again at random.

`CONTEXTEN_CHAOS_S` says for how many seconds (a minute); `CONTEXTEN_CHAOS=full` (`make chaos`) makes it ten minutes,
with another seed each time. Stops outlast the lease, so servers also wake up after others have taken their runs over.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest

from .conftest import Lives, TaskKey, World, entries
from .flows import CHILD, MIXED, MIXED_OUTPUT, MIXED_STATES, MIXED_TRIES
from .herd import Server

IS_FULL = os.environ.get("CONTEXTEN_CHAOS") == "full"
DURATION_S = 600.0 if IS_FULL else float(os.environ.get("CONTEXTEN_CHAOS_S", "60"))
SERVERS = 3
LEASE_S = 1.5
LIVES_S = (0.5, 12.0)  # for how long a server works that nobody disturbs
STOPS_S = (0.2, 4.0)
PAUSES_S = (0.1, 1.2)  # between two strokes of fate
JOB = {"lease_ttl_s": LEASE_S, "max_interruptions": 1000, "max_concurrent_flows": 12, "patience_s": 120.0}


@dataclass
class Stop:
    """A process that stood still."""

    pid: int
    begin: float
    end: float = float("inf")


@dataclass
class Fate:
    """What happens to the servers, drawn by a seeded chance."""

    world: World
    servers: list[Server]
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    stops: list[Stop] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    _wakes: dict[str, float] = field(default_factory=dict)
    _heard: dict[str, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def rule(self, duration_s: float) -> None:
        """Strike at random for so long; then let everybody end in peace."""
        end = time.monotonic() + duration_s
        strike_at = 0.0
        while (now := time.monotonic()) < end:
            for server in self.servers:
                if self._wakes.get(server.name, float("inf")) <= now:
                    self._continue(server)
                if not server.lives:
                    self._start(server)
            if now >= strike_at:
                self._strike(self.chance.choice(self.servers))
                strike_at = now + self.chance.uniform(*PAUSES_S)
            self._listen(0.05)
        for server in self.servers:
            if server.name in self._wakes:
                self._continue(server)
        while any(server.lives for server in self.servers):
            self._listen(0.5)

    def _listen(self, timeout_s: float) -> None:
        for ready in select.select([server.fileno for server in self.servers], [], [], timeout_s)[0]:
            server = next(server for server in self.servers if server.fileno == ready)
            server.pump(0.0)
            self._gather(server)
            if not server.lives:
                self._wakes.pop(server.name, None)
                assert server.status in (0, -signal.SIGKILL), server.log(self.world)
                self.done["ended in order"] += server.status == 0

    def _gather(self, server: Server) -> None:
        self.acknowledged += server.said("run")[self._heard[server.name] :]
        self._heard[server.name] = len(server.said("run"))

    def _start(self, server: Server) -> None:
        load = ["load", "mixed", f"{server.name}-{next(self._numbers)}", self.chance.uniform(*LIVES_S)]
        server.start(self.world, [["create", "child", CHILD], ["create", "mixed", MIXED], load], **JOB)
        self._heard[server.name] = 0
        self.done["starts"] += 1

    def _strike(self, server: Server) -> None:
        if not server.lives or server.name in self._wakes:
            return
        if self.chance.random() < 0.5:
            server.send(signal.SIGKILL)
            self.done["kills"] += 1
            server.until(lambda: not server.lives)
            self._gather(server)
        else:
            server.send(signal.SIGSTOP)
            self.done["stops"] += 1
            self.stops.append(Stop(server.pid, time.time()))
            self._wakes[server.name] = time.monotonic() + self.chance.uniform(*STOPS_S)

    def _continue(self, server: Server) -> None:
        del self._wakes[server.name]
        next(stop for stop in reversed(self.stops) if stop.pid == server.pid).end = time.time()  # not after it woke
        server.send(signal.SIGCONT)


def test_servers_killed_stopped_and_restarted_at_random_lose_nothing_and_repeat_nothing_recorded(
    lives: Lives, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if IS_FULL else 3
    servers = [Server(f"s{number}") for number in range(SERVERS)]
    fate = Fate(world, servers, random.Random(seed))
    try:
        fate.rule(DURATION_S)
    finally:
        for server in servers:
            server.close()
    world.run_to_the_end(**JOB)
    violations = _violations(world, fate)
    figures = _figures(world, fate, violations)
    with capsys.disabled():
        sys.stdout.write(f"\nchaos for {DURATION_S:g} s (seed {seed}): {json.dumps(figures)}\n")
    assert violations == []
    assert all(figures[name] for name in ("runs", "kills", "stops", "takeovers", "leases lost by silence"))


def _figures(world: World, fate: Fate, violations: list[str]) -> dict[str, int]:
    reasons = Counter(row[0] for row in world.rows("SELECT data ->> 'reason' FROM events WHERE type = 'server.lost'"))
    ((takeovers,),) = world.rows("SELECT count(*) FROM events WHERE type = 'run.lease_taken'")
    ended = reasons.pop("its process has ended", 0)
    return {
        "runs": len(world.outputs("mixed")),
        "tasks executed": len(world.effects()),
        **fate.done,
        "leases lost by death": ended,
        "leases lost by silence": sum(reasons.values()),
        "takeovers": takeovers,
        "violations": len(violations),
    }


def _violations(world: World, fate: Fate) -> list[str]:
    """Every promise that was not kept."""
    runs = world.runs()
    assert fate.acknowledged
    found = [f"acknowledged and lost: {run_id}" for run_id in set(fate.acknowledged) - runs.keys()]
    found += [f"did not end as it must: {run_id} {run}" for run_id, run in runs.items() if run[1] != "completed"]
    found += [f"a wrong output: {output}" for output in world.outputs("mixed") if output != MIXED_OUTPUT]
    for (run_id, task, item), (state, *_) in world.tasks().items():
        if runs[run_id][0] == "mixed" and item == -1 and state != MIXED_STATES[task]:
            found.append(f"a wrong state: {task} of {run_id} is {state}")
    for (_, task, item), number in world.effects():
        if not 1 <= number <= MIXED_TRIES.get(task, 1):
            found.append(f"attempt number {number} of {task}[{item}]")
    return found + _repeated(world, fate.stops)


def _repeated(world: World, stops: list[Stop]) -> list[str]:
    """Executions of what was recorded as done. One by a process that stood still between its start, which was
    recorded in time, and its effect is none: nobody can hold that back."""
    sql = "SELECT run_id, task, item, at FROM events WHERE type = ?"
    done = {_key(row): row[3] for row in world.rows(sql, "task.completed")}
    starts: dict[TaskKey, list[float]] = {}
    for row in world.rows(sql, "task.running"):
        starts.setdefault(_key(row), []).append(row[3])
    found = []
    for line in entries(world.ledger):
        key = (line["run"], line["task"], line["item"])
        end = done.get(key)
        if end is None or line["at"] <= end:
            continue
        stood = [stop for stop in stops if stop.pid == line["pid"] and stop.begin <= end <= stop.end <= line["at"]]
        if not any(start <= stop.begin for stop in stood for start in starts.get(key, [])):
            found.append(f"executed again after it was recorded as done: {key}")
    return found


def _key(row: tuple[str, str, int | None, float]) -> TaskKey:
    return row[0], row[1], -1 if row[2] is None else row[2]
