"""Whatever is asked of runs and whenever: they stay within the legal tables, what has ended stays, and all can end."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError, IllegalMove
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.states import RUN_MOVES, RunState

IS_FULL = os.environ.get("CONTEXTEN_CHAOS") == "full"
LIMIT_S = 60.0  # a run that takes longer to end has lost a wake-up
ENDED = ("completed", "failed", "cancelled")


def act(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "test",
        "required_tools": ["act"],
        "retry": {"max_attempts": 2, "delay_s": 0},
        **fields,
    }


CHILD = {"stages": [{"name": "c", "execution_mode": "parallel", "tasks": [act("c1"), act("c2")]}]}
FLOWS: dict[str, dict[str, Any]] = {
    "child": CHILD,
    "sequence": {"stages": [{"name": "s", "tasks": [act("one"), act("two"), act("three")]}]},
    "wide": {
        "stages": [
            {
                "name": "s",
                "execution_mode": "parallel",
                "max_parallel": 2,
                "continue_on_task_failure": True,
                "tasks": [act("left"), act("right"), act("fan", for_each=[1, 2, 3], max_parallel=2)],
            },
            {"name": "last", "tasks": [act("end")]},
        ]
    },
    "nested": {
        "stages": [
            {
                "name": "s",
                "tasks": [
                    act("before"),
                    {"name": "sub", "type": "flow", "parameters": {"flow_id": "child"}},
                    act("behind"),
                ],
            }
        ]
    },
    "dozing": {
        "stages": [
            {
                "name": "s",
                "execution_mode": "parallel",
                "tasks": [
                    {"name": "nap", "type": "wait", "parameters": {"seconds": 0.06}},
                    act("one"),
                    act("two", depends_on=["one"]),
                ],
            }
        ]
    },
    "sleepy": {
        "stages": [
            {
                "name": "s",
                "execution_mode": "parallel",
                "tasks": [
                    {"name": "nap", "type": "wait", "parameters": {"seconds": 0.06}},
                    act("awake"),
                    {"name": "sub", "type": "flow", "parameters": {"flow_id": "child"}},
                ],
            }
        ]
    },
}


class Puppet:
    """An agent whose attempts end when and as they are told to."""

    name = "puppet"
    agent_type = "test"
    tools = ("act",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.is_free = False
        self.active: dict[tuple[str, str, int | None], anyio.Event] = {}
        self.fails: set[tuple[str, str, int | None]] = set()
        self.twice: list[Any] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        key = (context.run_id, context.task, context.item_index)
        if key in self.active:
            self.twice.append(key)
        self.active[key] = event = anyio.Event()
        try:
            if not self.is_free:
                await event.wait()
            if key in self.fails:
                raise AttemptError("as told", kind="network")
            return 1
        finally:
            del self.active[key]
            self.fails.discard(key)

    def release(self, number: int, *, fails: bool) -> None:
        keys = sorted(self.active, key=str)
        if keys:
            key = keys[number % len(keys)]
            if fails:
                self.fails.add(key)
            self.active[key].set()

    def release_all(self) -> None:
        self.is_free = True
        for event in self.active.values():
            event.set()


class Control(RuleBasedStateMachine):
    """Runs of several shapes, driven by a real service, and a person who cannot leave them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.database = Path(folder) / "flow.sqlite3"
        self.portal = self.stack.enter_context(anyio.from_thread.start_blocking_portal())
        self.runs: list[str] = []
        self.last: dict[str, str] = {}
        self.outputs: dict[tuple[str, str], str] = {}

    @initialize(capacity=st.sampled_from([1, 2, 100]), limit=st.sampled_from([1, 2, 100]))
    def start(self, capacity: int, limit: int) -> None:
        self.puppet = Puppet(capacity)
        self.limit = limit
        self._open()
        self.portal.call(self._create)

    async def _create(self) -> None:
        for flow_id, definition in FLOWS.items():
            await self.service.create_flow(flow_id=flow_id, workflow_def=definition)

    def _open(self) -> None:
        self.service = FlowService(
            FlowSettings(
                database=self.database,
                durability="process",
                max_concurrent_flows=self.limit,
                cancel_grace_s=1.0,
                stop_grace_s=0.0,
                circuit_failures=0,
            ),
            agents=[self.puppet],
        )
        self.context = self.portal.wrap_async_context_manager(self.service)
        self.context.__enter__()

    @rule(flow=st.sampled_from(sorted(FLOWS)))
    def execute(self, flow: str) -> None:
        self.runs.append(self.portal.call(lambda: self.service.execute_flow(flow_id=flow)).run_id)

    @rule(number=st.integers(0, 9), fails=st.booleans())
    def let_an_attempt_end(self, number: int, fails: bool) -> None:
        self.portal.call(lambda: self.puppet.release(number, fails=fails))

    @precondition(lambda self: self.runs)
    @rule(number=st.integers(0, 9), action=st.sampled_from(["pause", "resume", "cancel", "pause", "resume"]))
    def ask(self, number: int, action: Any) -> None:
        run_id = self.runs[number % len(self.runs)]
        before = RunState(self.portal.call(lambda: self.service.get_run(run_id)).state)
        try:
            answer = self.portal.call(lambda: self.service.control(run_id, action))
        except IllegalMove:
            return
        # between question and answer it may have moved on its own, but never out of what is final
        assert not before.is_terminal or answer.state == before

    @precondition(lambda self: self.runs)
    @rule(number=st.integers(0, 9), action=st.sampled_from(["retry", "rerun_from"]), place=st.integers(0, 9))
    def run_again(self, number: int, action: Any, place: int) -> None:
        run_id = self.runs[number % len(self.runs)]
        view = self.portal.call(lambda: self.service.get_run(run_id, detail="tasks"))
        tasks = [task.name for task in view.tasks or []]
        task = tasks[place % len(tasks)] if action == "rerun_from" else None
        try:
            answer = self.portal.call(lambda: self.service.control(run_id, action, task=task))
        except IllegalMove:
            return
        assert view.state in ENDED or self._state(run_id) in ENDED
        assert answer.run_id not in self.runs
        self.runs.append(answer.run_id)

    @rule(yields=st.integers(1, 30))
    def let_time_pass(self, yields: int) -> None:
        async def turn() -> None:
            for _ in range(yields):
                await self.service.list_runs(limit=1)

        self.portal.call(turn)

    @precondition(lambda self: self.runs)
    @rule()
    def stop_and_start_again(self) -> None:
        self.context.__exit__(None, None, None)
        assert not self.puppet.active
        self._open()

    def _state(self, run_id: str) -> str:
        return str(self.portal.call(lambda: self.service.get_run(run_id)).state)

    @invariant()
    def what_has_ended_stays(self) -> None:
        if not hasattr(self, "service"):
            return
        rows = self.portal.call(lambda: self.service._store.rows("SELECT run_id, state FROM runs"))
        for run_id, state in ((str(row[0]), str(row[1])) for row in rows):
            before = self.last.get(run_id)
            assert before not in ENDED or before == state, f"{run_id} was {before} and is {state}"
            assert before is None or RUN_MOVES[RunState(before)] or before == state
            self.last[run_id] = state
        assert not self.last.keys() - {row[0] for row in rows}
        tasks = "SELECT run_id, task, item, state, output FROM tasks WHERE ended_at IS NOT NULL"
        for row in self.portal.call(lambda: self.service._store.rows(tasks)):
            key, now = (str(row[0]), f"{row[1]}[{row[2]}]"), f"{row[3]} {row[4]}"
            assert self.outputs.setdefault(key, now) == now
        assert not self.puppet.twice

    def teardown(self) -> None:
        with self.stack:
            if hasattr(self, "service"):
                try:
                    self.portal.call(self._end_all)
                    self.what_has_ended_stays()
                finally:
                    self.context.__exit__(None, None, None)

    async def _end_all(self) -> None:
        """Resume what is paused and let every attempt end: then every run must end."""
        self.puppet.release_all()
        for run_id in self.runs:
            try:
                await self.service.control(run_id, "resume")
            except IllegalMove:
                continue
        with anyio.move_on_after(LIMIT_S) as scope:
            for run_id in self.runs:
                await self.service.wait(run_id)
        rows = await self.service._store.rows("SELECT run_id, state, request, parent_run_id FROM runs")
        stuck = [tuple(row) for row in rows if row["state"] not in ENDED]
        assert not scope.cancelled_caught, f"these do not end: {stuck}"
        assert not stuck, f"sub-flows left behind: {stuck}"
        report = await self.service.verify()
        assert report.ok, report.problems
        assert self.service.registry.running == 0


TestControl = Control.TestCase
TestControl.settings = settings(
    max_examples=600 if IS_FULL else 25,
    stateful_step_count=40 if IS_FULL else 25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
