"""Replaying a workload through a strategy: from event to event, without a clock."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from ..strategies import QueuedRun, RunningRun, SchedulingStrategy, Situation, Strategy, strategy_named
from .workload import Job, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job: when it started and ended (in the workload's seconds), and on which slot, from 0."""

    job: Job
    start: float
    end: float
    slot: int

    @property
    def wait_s(self) -> float:
        """Seconds from its arrival to its start."""
        return self.start - self.job.arrival

    @property
    def is_late(self) -> bool:
        """Whether it ended after its deadline."""
        return self.job.deadline is not None and self.end > self.job.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A workload as one strategy would have run it; outcomes in the order of their starts."""

    strategy: str
    workload: Workload
    outcomes: Sequence[Outcome]

    @property
    def end(self) -> float:
        """When the last job ended; the beginning where there was none."""
        return max((outcome.end for outcome in self.outcomes), default=self.workload.start)


def simulate(workload: Workload, strategy: Strategy) -> Schedule:
    """Run every job to its end. The same workload and strategy give the same schedule.

    Discrete-event simulation with the next event first (A. M. Law, "Simulation Modeling and Analysis"). At one time
    ends come before arrivals, and both before the decision. Costs for each event a search in the queue, and one
    decision of the strategy where a slot is free and somebody waits.
    """
    return _Replay(workload, strategy).run()


def simulate_all(workload: Workload, *, aging_interval_s: float) -> list[Schedule]:
    """Every strategy on the same workload."""
    named = [strategy_named(name, aging_interval_s=aging_interval_s) for name in SchedulingStrategy]
    return [simulate(workload, strategy) for strategy in named]


class _Replay:
    """The state of one simulation."""

    def __init__(self, workload: Workload, strategy: Strategy) -> None:
        self._workload = workload
        self._strategy = strategy
        self._arrivals = deque(sorted(workload.jobs, key=lambda job: job.arrival))
        self._seq = 0
        self._queue: list[tuple[float, int, QueuedRun]] = []  # always in order
        self._waiting: dict[str, Job] = {}
        self._holders: dict[str, RunningRun] = {run.run_id: run for run in workload.running}
        self._slots = list(range(len(workload.running), workload.slots))  # a heap of the free ones
        self._ends = [(run.expected_end or 0.0, slot, run.run_id) for slot, run in enumerate(workload.running)]
        heapify(self._ends)
        self._outcomes: list[Outcome] = []

    def run(self) -> Schedule:
        now = self._workload.start
        while self._arrivals or self._ends or self._queue:
            now = max(now, self._next_event())
            while self._ends and self._ends[0][0] <= now:
                self._release()
            while self._arrivals and self._arrivals[0].arrival <= now:
                self._enqueue(self._arrivals.popleft())
            self._decide(now)
        return Schedule(strategy=self._strategy.name, workload=self._workload, outcomes=tuple(self._outcomes))

    def _next_event(self) -> float:
        times = [self._ends[0][0]] if self._ends else []
        if self._arrivals:
            times.append(self._arrivals[0].arrival)
        if not times:
            raise RuntimeError(
                f"{self._strategy.name} starts none of {len(self._queue)} runs though all slots are free"
            )
        return min(times)

    def _release(self) -> None:
        _, slot, run_id = heappop(self._ends)
        del self._holders[run_id]
        if slot < self._workload.slots:
            heappush(self._slots, slot)

    def _enqueue(self, job: Job) -> None:
        self._seq += 1
        run = QueuedRun(
            run_id=job.run_id,
            seq=self._seq,
            enqueued_at=job.arrival,
            priority=job.priority,
            deadline=job.deadline,
            estimate_s=job.estimate_s,
            demands=job.demands,
        )
        self._waiting[job.run_id] = job
        insort(self._queue, (self._strategy.key(run), run.seq, run))

    def _decide(self, now: float) -> None:
        free = self._workload.slots - len(self._holders)
        if free <= 0 or not self._queue:
            return
        size = free + self._strategy.look_ahead
        head = self._queue[:size]
        situation = Situation(
            now=now,
            free_slots=free,
            running=tuple(self._holders.values()),
            capacity=self._workload.capacity,
        )
        started = {run.run_id for run in self._strategy.admit([run for _, _, run in head], situation)}
        self._queue[:size] = [entry for entry in head if entry[2].run_id not in started]
        for _, _, run in head:
            if run.run_id in started:
                self._start(run, now)

    def _start(self, run: QueuedRun, now: float) -> None:
        job = self._waiting.pop(run.run_id)
        slot = heappop(self._slots)
        expected_end = None if run.estimate_s is None else now + run.estimate_s
        self._holders[run.run_id] = RunningRun(run_id=run.run_id, demands=run.demands, expected_end=expected_end)
        heappush(self._ends, (now + job.duration_s, slot, run.run_id))
        self._outcomes.append(Outcome(job=job, start=now, end=now + job.duration_s, slot=slot))
