"""A workload that cannot be replayed is refused with the run that is wrong."""

from __future__ import annotations

import math

import pytest

from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.simulation import Job, Workload
from contexten.extensions.flow.strategies import RunningRun


def test_a_replay_begins_with_the_first_arrival_or_when_it_is_told() -> None:
    jobs = [Job(run_id="b", arrival=9, duration_s=1), Job(run_id="a", arrival=5, duration_s=1)]
    assert Workload(jobs=jobs, slots=1).start == 5
    assert Workload(jobs=jobs, slots=1, begin=7).start == 7
    assert Workload(jobs=[], slots=1).start == 0


def test_a_run_that_stands_twice_is_refused() -> None:
    job = Job(run_id="twin", arrival=0, duration_s=1)
    with pytest.raises(InvalidArguments, match="'twin' stands twice"):
        Workload(jobs=[job, job], slots=1)
    with pytest.raises(InvalidArguments, match="'twin' stands twice"):
        Workload(jobs=[job], running=[RunningRun(run_id="twin", expected_end=1)], slots=1)


@pytest.mark.parametrize(
    ("arrival", "duration_s"), [(math.nan, 1), (math.inf, 1), (0, -1), (0, math.inf), (0, math.nan)]
)
def test_times_that_are_none_are_refused(arrival: float, duration_s: float) -> None:
    with pytest.raises(InvalidArguments, match="'odd' arrives at"):
        Workload(jobs=[Job(run_id="odd", arrival=arrival, duration_s=duration_s)], slots=1)


def test_there_is_a_slot_and_running_runs_have_an_end() -> None:
    with pytest.raises(InvalidArguments, match="at least one slot"):
        Workload(jobs=[], slots=0)
    with pytest.raises(InvalidArguments, match="'r' ends is not known"):
        Workload(jobs=[], slots=1, running=[RunningRun(run_id="r")])
