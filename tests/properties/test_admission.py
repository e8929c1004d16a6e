"""Whatever fails, and whenever: circuits and rate limits hold attempts up for a while, never for ever."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from contexten.extensions.flow.agents.protocol import Agent, AttemptContext, TaskCall
from contexten.extensions.flow.agents.registry import AgentRegistry
from contexten.extensions.flow.agents.staff import Staff
from contexten.extensions.flow.definition import WorkflowDefinition, compile_plan
from contexten.extensions.flow.execution.admission import PROBE_S, Admission, Hold
from contexten.extensions.flow.execution.unit import Unit
from contexten.extensions.flow.recovery.circuits import MAX_OPEN_S, Circuits
from contexten.extensions.flow.scheduling.rates import RateLimit, RateLimits
from contexten.extensions.flow.store import TaskRow

JOB = {"name": "job", "required_tools": ["api"]}
PLAN = compile_plan(WorkflowDefinition.model_validate({"stages": [{"name": "s", "tasks": [JOB]}]}))
KINDS = [None, "network", "timeout", "agent_failure", "invalid", "interrupted"]


@dataclass
class Desk:
    """A clock and timers of the simulation: callbacks by time."""

    at: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: Any = field(default_factory=count)

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at)

    def timestamp(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return self.at

    def random(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")

    def after(self, seconds: float, callback: Callable[[], None]) -> Desk:
        assert seconds > 0, "an alarm for a time that has come would ring for ever"
        heapq.heappush(self.events, (self.at + seconds, next(self.numbers), callback))
        return self

    def cancel(self) -> None:
        """Alarms of before ring all the same; that does no harm."""


class Worker:
    agent_type = "worker"
    tools = ("api",)
    capacity = 1000

    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self, task: TaskCall, context: AttemptContext) -> None:
        raise AssertionError("nothing runs here")


Attempts = list[tuple[float, float, str | None]]


def simulate(attempts: Attempts, agents: int, limit: RateLimit | None) -> list[tuple[float, float]]:
    """When each attempt asked first, and when it began; the next one asks after a pause, each takes its time."""
    desk = Desk()
    registry = AgentRegistry([Worker(f"w{i}") for i in range(agents)])
    staff = Staff(registry)
    waiting: dict[Unit, tuple[float, float, str | None, Hold | None]] = {}
    began: list[tuple[float, float]] = []

    def look() -> None:
        for unit, (asked, lasts, kind, earlier) in list(waiting.items()):
            answer = admission.admit(unit, staff, earlier)
            assert answer is not None, "nobody is ever busy"
            if isinstance(answer, Hold):
                assert answer.until > desk.at
                waiting[unit] = asked, lasts, kind, answer
                continue
            del waiting[unit]
            began.append((asked, desk.at))
            desk.after(lasts, lambda unit=unit, agent=answer, kind=kind: end(unit, agent, kind))  # type: ignore[misc]  # a lambda's default has no type

    def end(unit: Unit, agent: Agent, kind: str | None) -> None:
        registry.release(agent, unit.node.task)
        admission.ended(unit, staff, agent, kind, None)
        look()

    def ask(lasts: float, kind: str | None) -> None:
        waiting[Unit(TaskRow("job"), PLAN.tasks["job"])] = desk.at, lasts, kind, None
        look()

    limits = RateLimits({} if limit is None else {"api": limit})
    admission = Admission(registry, Circuits(failures=2), limits, desk, desk, look)  # type: ignore[arg-type]  # of the timers only `after` is used
    at = 0.001
    for pause, lasts, kind in attempts:
        at += pause
        desk.after(at, lambda lasts=lasts, kind=kind: ask(lasts, kind))  # type: ignore[misc]  # likewise
    for _ in range(100_000):
        if not desk.events:
            break
        desk.at, _, callback = heapq.heappop(desk.events)
        callback()
    assert not waiting, "an attempt is held up, and nothing will wake it"
    assert registry.running == 0
    return began


some_attempts = st.lists(
    st.tuples(st.floats(0, 40), st.floats(0.001, 50), st.sampled_from(KINDS)), min_size=1, max_size=40
)


@given(attempts=some_attempts, agents=st.integers(1, 3))
def test_a_circuit_holds_nothing_up_beyond_its_open_time_and_a_probe(attempts: Attempts, agents: int) -> None:
    began = simulate(attempts, agents, None)
    assert len(began) == len(attempts)
    assert max(start - asked for asked, start in began) <= MAX_OPEN_S + PROBE_S + 1e-6


@given(attempts=some_attempts, agents=st.integers(1, 2), requests=st.integers(1, 3), interval_s=st.floats(0.1, 60))
def test_with_both_every_attempt_begins_and_none_sooner_than_its_token(
    attempts: Attempts, agents: int, requests: int, interval_s: float
) -> None:
    began = simulate(attempts, agents, RateLimit(requests, interval_s))
    assert len(began) == len(attempts)
    starts = sorted(start for _, start in began)
    for i, first in enumerate(starts):
        inside = sum(first <= start <= first + interval_s / 2 for start in starts[i:])
        assert inside <= requests + math.floor(requests / 2 + 1e-3) + 1
