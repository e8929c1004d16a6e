"""The on_failure tasks of one run: which of them run, one after another, when all its other tasks have ended.

First those of the failed tasks, the one that ended last before the others, then the flow's own if the run has failed.
The order follows from what is recorded (when each task ended), so that a restart goes on where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from ..definition import Plan, TaskNode
from ..errors import AttemptError
from ..states import TaskState
from .progression import Decision, Verdict


class Compensation:
    """The walk of one run through its on_failure tasks. Not thread-safe; owned by the run's execution."""

    def __init__(
        self,
        plan: Plan,
        finished: Mapping[str, TaskState],
        started: Collection[str],
        holds: Callable[[TaskNode], bool],
    ) -> None:
        """`finished` and `started` are tasks that ended before, or have begun and not ended; `holds` evaluates the
        `when` of one and raises AttemptError where it cannot."""
        self._plan = plan
        self._nodes = [plan.tasks[name] for names in plan.on_failure.values() for name in names]
        self._finished = {node.name: finished[node.name] for node in self._nodes if node.name in finished}
        self._started = frozenset(started)
        self._holds = holds
        self._queue: deque[str] = deque()
        self._not_due: dict[str, str] = {}
        self._current: str | None = None
        self.has_begun = False
        """Whether it is known which of them run."""

    @property
    def is_done(self) -> bool:
        """Whether each of them has ended or been skipped."""
        return self.has_begun and not (self._queue or self._not_due) and self._current is None

    @property
    def failures(self) -> list[str]:
        """Those that failed, in the order of the plan."""
        return [node.name for node in self._nodes if self._finished.get(node.name) is TaskState.FAILED]

    def begin(self, failed: Sequence[str], *, has_run_failed: bool) -> None:
        """All other tasks have ended; `failed` are those that failed, the one that ended last first."""
        self.has_begun = True
        causes = (*failed, "") if has_run_failed else failed
        self._queue.extend(name for cause in causes for name in self._plan.on_failure.get(cause, ()))
        for node in self._nodes:
            if node.on_failure_of not in causes:
                self._not_due[node.name] = _why_not(node, has_failure=bool(causes))

    def decide(self) -> Iterator[Decision]:
        """What becomes of those that do not run, and the next one that does. A skip is final here; a ready one ends
        through `finish`. Each decision is to be taken up before the next one is asked for."""
        while self._not_due:
            name, reason = self._not_due.popitem()
            if name not in self._finished:
                yield self._decided(Decision(name, Verdict.SKIPPED, reason))
        while self._queue and self._current is None:
            name = self._queue.popleft()
            if name in self._finished:
                continue
            if name in self._started:  # it was decided before, and ends through `finish`
                self._current = name
                return
            yield self._decided(self._judge(self._plan.tasks[name]))

    def finish(self, task: str, state: TaskState) -> None:
        """A ready one ended."""
        self._finished[task] = state
        if self._current == task:
            self._current = None

    def _judge(self, node: TaskNode) -> Decision:
        if node.when is not None:
            try:
                if not self._holds(node):
                    return Decision(node.name, Verdict.SKIPPED, "its condition is false")
            except AttemptError as error:
                return Decision(node.name, Verdict.FAILED, error.message)
        return Decision(node.name, Verdict.READY)

    def _decided(self, decision: Decision) -> Decision:
        if decision.verdict is Verdict.READY:
            self._current = decision.task
        else:
            is_failed = decision.verdict is Verdict.FAILED
            self._finished[decision.task] = TaskState.FAILED if is_failed else TaskState.SKIPPED
        return decision


def _why_not(node: TaskNode, *, has_failure: bool) -> str:
    if not has_failure:
        return "nothing failed"
    return f"{node.on_failure_of} did not fail" if node.on_failure_of else "every failure was tolerated"
