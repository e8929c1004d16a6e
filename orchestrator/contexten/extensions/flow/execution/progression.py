"""What of a plan may move next: a pure state machine over the plan's graph.

Its nodes are the start of each stage, each task, and the end of each stage. A node is decided when all nodes before it
are; deciding a task answers that it is ready, skipped or failed. Failures travel two ways: to the tasks that depend on
the failed one (by `depends_on` or a template), and, where no continue flag tolerates them, along the implied order of
sequential tasks and stages. A `when` that names the failed task lets its task run all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from ..definition import Plan, StageNode, TaskNode, Template
from ..definition.graph import Graph, Node
from ..errors import AttemptError
from ..states import TaskState
from ..store.records import UPSTREAM


class Verdict(Enum):
    """What was decided of a task."""

    READY = "ready"
    SKIPPED = "skipped"
    FAILED = "failed"


class Decision(NamedTuple):
    """A decided task; `reason` says why it is skipped or failed."""

    task: str
    verdict: Verdict
    reason: str = ""


class Progression:
    """The walk of one run through its plan. Not thread-safe; owned by the run's execution."""

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        finished: Mapping[str, tuple[TaskState, str | None]],
        started: Collection[str],
        holds: Callable[[Template], bool],
    ) -> None:
        """`finished` are the tasks that ended before, with the reason of a skip, `started` those that have begun
        and not ended; `holds` evaluates a condition and raises AttemptError where it cannot."""
        self._plan = plan
        self._graph = graph
        self._holds = holds
        self._finished = dict(finished)
        self._started = frozenset(started)
        self._missing = dict(graph.before)
        self._undecided: deque[Node] = deque(node for node, count in graph.before.items() if count == 0)
        self._blocked: dict[str, frozenset[str]] = {}
        self._failures: dict[str, set[str]] = {stage.name: set() for stage in plan.stages}
        self._passed_on: dict[str, frozenset[str]] = {}
        self._stage_reason: dict[str, str] = {}
        self._stages: dict[str, StageNode] = {stage.name: stage for stage in plan.stages}
        self._unsatisfied: dict[str, str] = {}
        self._ends = 0
        for name, (state, reason) in self._finished.items():
            self._note(name, state, reason)

    @property
    def is_done(self) -> bool:
        """Whether every task has ended."""
        return self._ends == len(self._plan.stages)

    def stage(self, name: str) -> StageNode:
        """The stage of that name."""
        return self._stages[name]

    def failures(self, *, tolerated: bool) -> list[str]:
        """Failed tasks in the order of the plan, those that a continue flag tolerates or the others."""
        flow_tolerates = self._plan.definition.continue_on_failure
        return [
            task
            for stage in self._plan.stages
            for task in stage.tasks
            if task in self._failures[stage.name] and (flow_tolerates or stage.continue_on_task_failure) is tolerated
        ]

    def finish(self, task: str, state: TaskState, reason: str | None = None) -> None:
        """A ready task ended."""
        self._note(task, state, reason)
        self._release(Node("task", task))

    def _note(self, task: str, state: TaskState, reason: str | None) -> None:
        if state is TaskState.FAILED:
            self._failures[self._plan.tasks[task].stage].add(task)
            self._unsatisfied[task] = task
        elif state is TaskState.CANCELLED or (state is TaskState.SKIPPED and (reason or "").startswith(UPSTREAM)):
            self._unsatisfied[task] = task

    def _release(self, node: Node) -> None:
        for target in self._graph.after.get(node, ()):
            self._missing[target] -= 1
            if self._missing[target] == 0:
                self._undecided.append(target)

    def decide(self) -> Iterator[Decision]:
        """Decide every task whose time has come. A skip is final here; ready tasks end through `finish`.

        Each decision is to be taken up before the next one is asked for: conditions see what was decided before.
        """
        while self._undecided:
            node = self._undecided.popleft()
            if node.kind == "start":
                self._start_stage(self._stages[node.name])
            elif node.kind == "end":
                self._end_stage(self._stages[node.name])
            elif node.name in self._finished:
                self._release(node)
                continue
            elif node.name in self._started:
                continue  # it was decided before, and ends through `finish`
            else:
                decision = self.judge(node.name)
                if decision.verdict is not Verdict.READY:
                    state = TaskState.SKIPPED if decision.verdict is Verdict.SKIPPED else TaskState.FAILED
                    self.finish(decision.task, state, decision.reason)
                yield decision
                continue
            self._release(node)

    def _start_stage(self, stage: StageNode) -> None:
        blocked: frozenset[str] = frozenset().union(*(self._passed_on[name] for name in stage.depends_on))
        if stage.when is not None:
            blocked -= stage.requires
            try:
                if not self._holds(stage.when):
                    self._stage_reason[stage.name] = f"the condition of stage {stage.name} is false"
            except AttemptError as error:
                self._stage_reason[stage.name] = f"!{error.message}"
        self._blocked[stage.name] = blocked

    def _end_stage(self, stage: StageNode) -> None:
        self._ends += 1
        if self._plan.definition.continue_on_failure:
            self._passed_on[stage.name] = frozenset()
            return
        own = frozenset() if stage.continue_on_task_failure else frozenset(self._failures[stage.name])
        self._passed_on[stage.name] = self._blocked[stage.name] | own

    def still_wanted(self, task: str) -> Decision | None:
        """Whether a ready task that has not started (for want of a place) is to be skipped after all."""
        node = self._plan.tasks[task]
        cause = self._order_cause(node) if node.on_failure_of is None else None
        return Decision(task, Verdict.SKIPPED, f"{UPSTREAM}: {cause}") if cause else None

    def _order_cause(self, node: TaskNode) -> str | None:
        stage = self._stages[node.stage]
        causes = self._blocked[stage.name]
        if not stage.continue_on_task_failure:
            causes = causes | self._failures[stage.name]
        causes = causes - node.tolerates
        return min(causes) if causes else None

    def judge(self, task: str) -> Decision:
        """Decide one task whose predecessors are all decided."""
        node = self._plan.tasks[task]
        blocked = self._blocked[node.stage] - node.tolerates
        if blocked:
            return Decision(task, Verdict.SKIPPED, f"{UPSTREAM}: {min(blocked)}")
        stage_reason = self._stage_reason.get(node.stage)
        if stage_reason is not None:
            if stage_reason.startswith("!"):
                return Decision(task, Verdict.FAILED, stage_reason[1:])
            return Decision(task, Verdict.SKIPPED, stage_reason)
        cause = self._order_cause(node) or next(
            (name for name in sorted(node.requires - node.tolerates) if name in self._unsatisfied), None
        )
        if cause is not None:
            return Decision(task, Verdict.SKIPPED, f"{UPSTREAM}: {cause}")
        if node.when is not None:
            try:
                if not self._holds(node.when):
                    return Decision(task, Verdict.SKIPPED, "its condition is false")
            except AttemptError as error:
                return Decision(task, Verdict.FAILED, error.message)
        return Decision(task, Verdict.READY)
