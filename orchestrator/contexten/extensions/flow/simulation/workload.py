"""What is replayed: runs with their arrivals and true durations, and what they share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InvalidArguments
from ..scheduling.priorities import FlowPriority
from ..strategies import RunningRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run as history knows it, or as a replay supposes it. Times in seconds on one clock, such as the epoch's."""

    run_id: str
    arrival: float
    duration_s: float
    """How long it holds its slot and its demands; strategies do not see it."""
    estimate_s: float | None = None
    """How long strategies believe that it takes; None where they cannot know."""
    priority: int = FlowPriority.NORMAL
    deadline: float | None = None
    demands: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Jobs, the slots and pools that they share, and what holds some of these already.

    Raises InvalidArguments where a job is told twice or lasts no number of seconds, where there is no slot, or where
    the end of a running run is not known.
    """

    jobs: Sequence[Job]
    slots: int
    capacity: Mapping[str, float] = field(default_factory=dict)
    running: Sequence[RunningRun] = ()
    """Runs that hold a slot at the beginning, each with its `expected_end`."""
    begin: float | None = None
    """Nothing starts before: jobs with an earlier arrival are in the queue then. None: the first arrival."""

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise InvalidArguments("A simulation needs at least one slot.", next="Give it 1 or more.")
        ids = Counter([job.run_id for job in self.jobs] + [run.run_id for run in self.running])
        if twice := [run_id for run_id, times in ids.items() if times > 1]:
            raise InvalidArguments(f"The run {twice[0]!r} stands twice in the workload.", next="Name each run once.")
        for job in self.jobs:
            if not (math.isfinite(job.arrival) and math.isfinite(job.duration_s) and job.duration_s >= 0):
                raise InvalidArguments(
                    f"The run {job.run_id!r} arrives at {job.arrival} and lasts {job.duration_s} seconds.",
                    next="Give a time, and a duration of 0 or more.",
                )
        if unknown := [run.run_id for run in self.running if run.expected_end is None]:
            raise InvalidArguments(
                f"When the running run {unknown[0]!r} ends is not known.",
                next="Give its expected_end, or a guess.",
            )

    @property
    def start(self) -> float:
        """When the replay begins, in seconds; 0 where nothing is replayed."""
        if self.begin is not None:
            return self.begin
        return min((job.arrival for job in self.jobs), default=0.0)
