"""The queue in the store, whatever is submitted, ends, fails and switches: none lost, none twice, nothing exceeded."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.scheduling.in_force import requeue
from contexten.extensions.flow.states import TERMINAL_RUN_STATES, RunState, TaskState
from contexten.extensions.flow.store import ClaimedRun, NewRun, RunMove, Store, StoredText, TaskMove, TaskRow
from contexten.extensions.flow.store.advances import Advance
from contexten.extensions.flow.store.deadlines import miss_due
from contexten.extensions.flow.store.flows import SaveFlow, create
from contexten.extensions.flow.store.queue import Rules, claim, put_limits
from contexten.extensions.flow.store.requests import request
from contexten.extensions.flow.store.submissions import submit
from contexten.extensions.flow.store.verify import verify
from contexten.extensions.flow.strategies import QueuedRun, SchedulingStrategy, Strategy, strategy_named

IS_FULL = os.environ.get("CONTEXTEN_CHAOS") == "full"
OWNER = "srv_1"
DEFINITION = '{"stages": [{"name": "s", "tasks": [{"name": "a"}]}]}'
FLOWS = {"plain": [], "limited": [], "slow": ["slow"], "both": ["slow", "other"]}
POOLS = {"gpu": 2.0, "tape": 1.0}
SLOTS = 4


@dataclass
class Known:
    """What the test knows of a run."""

    flow_id: str
    demands: dict[str, float]
    claims: int = 0


class Queue(RuleBasedStateMachine):
    """Commands on an open store, as one server after the other would give them."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="contexten-"))
        self.portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal())
        self.store = Store(Path(folder) / "flow.sqlite3", durability="process")
        self.portal.call(self.store.open)
        self._stack.callback(self.portal.call, self.store.close)
        self.known: dict[str, Known] = {}
        self.running: dict[str, ClaimedRun] = {}
        self.limits = {"flow:limited": 1, "tag:slow": 2}
        self.now = 1000.0
        self.strategy: Strategy = strategy_named("fifo", aging_interval_s=10)

    def teardown(self) -> None:
        try:
            if self.known:
                self._drain()
        finally:
            self._stack.close()

    def write(self, change: Any) -> Any:
        return self.portal.call(self.store.write, change)

    def rows(self, query: str) -> Sequence[Any]:
        return list(self.portal.call(self.store.rows, query))

    @initialize()
    def open(self) -> None:
        for flow_id, tags in FLOWS.items():
            flow = SaveFlow(
                flow_id=flow_id,
                name=flow_id,
                description=None,
                tags=json.dumps(tags),
                digest="d",
                definition=DEFINITION,
                at=1.0,
                actor=None,
            )
            self.write(lambda tx, flow=flow: create(tx, flow))
        self.write(lambda tx: put_limits(tx, "pool", POOLS))
        self._put_limits()

    def _put_limits(self) -> None:
        for key, size in self.limits.items():
            kind, _, name = key.partition(":")
            self.write(lambda tx, kind=kind, name=name, size=size: put_limits(tx, kind, {name: float(size)}))

    # What callers do
    @rule(
        flow_id=st.sampled_from(list(FLOWS)),
        fields=st.fixed_dictionaries(
            {
                "priority": st.integers(0, 4),
                "estimate_s": st.none() | st.integers(0, 30),
                "on_dependency_failure": st.sampled_from(["fail", "run"]),
            }
        ),
        deadline=st.none() | st.tuples(st.integers(1, 60), st.sampled_from(["continue", "cancel"])),
        demands=st.dictionaries(st.sampled_from([*POOLS, "agent:gone"]), st.integers(1, 3), max_size=2),
        data=st.data(),
    )
    def submit(
        self,
        flow_id: str,
        fields: dict[str, Any],
        deadline: tuple[int, str] | None,
        demands: dict[str, int],
        data: st.DataObject,
    ) -> None:
        run_id = f"run_{len(self.known)}"
        names = data.draw(st.lists(st.sampled_from([*FLOWS, *self.known]), max_size=3, unique=True))
        self.now += 1
        due = None if deadline is None else self.now + deadline[0]
        held = {name: float(amount) for name, amount in demands.items()}
        queued = QueuedRun(
            run_id=run_id,
            seq=0,
            enqueued_at=self.now,
            priority=fields["priority"],
            deadline=due,
            estimate_s=fields["estimate_s"],
        )
        run = self._run(
            run_id,
            flow_id,
            queue_key=self.strategy.key(queued),
            deadline=due,
            on_deadline=None if deadline is None else deadline[1],
            demands=json.dumps(held) if held else None,
            dependencies=tuple(names),
            **fields,
        )
        try:
            self.write(lambda tx: submit(tx, run))
        except InvalidArguments as refused:
            assert refused.issues[0].code == "cycle"  # noqa: PT017 - it may be refused, for this reason only
            assert any(name in FLOWS for name in names) or any(name in FLOWS for name in self._waits_for_flows())
            return
        self.known[run_id] = Known(flow_id, held)

    def _waits_for_flows(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT on_id FROM dependencies")]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), to=st.sampled_from([RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED]))
    def end(self, data: st.DataObject, to: RunState) -> None:
        self._end(data.draw(st.sampled_from(sorted(self.running))), to)

    def _end(self, run_id: str, to: RunState) -> None:
        run = self.running.pop(run_id)
        self.now += 1
        task = TaskRow("a", state=TaskState.RUNNING, started_at=self.now, attempts=1, agent="x")
        start = RunMove(
            run_id=run_id, flow_id=run.flow_id, fence=run.fence, at=self.now, tasks=(TaskMove(task, TaskState.PENDING),)
        )
        self.write(Advance(start))
        done = TaskRow("a", state=TaskState.COMPLETED, started_at=self.now, ended_at=self.now, attempts=1)
        done.output = StoredText.of("1")
        if to is not RunState.COMPLETED:
            done = TaskRow("a", state=TaskState.CANCELLED, started_at=self.now, ended_at=self.now, attempts=1)
        self.write(
            Advance(
                RunMove(
                    run_id=run_id,
                    flow_id=run.flow_id,
                    fence=run.fence,
                    at=self.now,
                    tasks=(TaskMove(done, TaskState.RUNNING),),
                    completed=int(to is RunState.COMPLETED),
                    to=to,
                    output=StoredText.of("{}") if to is RunState.COMPLETED else None,
                    error='{"kind": "unknown", "message": "m"}' if to is RunState.FAILED else None,
                )
            )
        )

    @precondition(lambda self: self.known)
    @rule(data=st.data(), action=st.sampled_from(["cancel", "pause", "resume"]))
    def ask(self, data: st.DataObject, action: str) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.known)))
        state = self.states()[run_id]
        if state == "running" or RunState(state).is_terminal or (state == "paused") != (action == "resume"):
            return
        self.write(lambda tx: request(tx, run_id, action, self.now, reason=None, actor=None))

    @rule(name=st.sampled_from(SchedulingStrategy))
    def switch(self, name: str) -> None:
        self.strategy = strategy_named(name, aging_interval_s=10)
        self.write(lambda tx: requeue(tx, self.strategy))

    @rule(key=st.sampled_from(["flow:limited", "tag:slow"]), size=st.integers(1, 3))
    def limit(self, key: str, size: int) -> None:
        self.limits[key] = size
        self._put_limits()

    @rule(seconds=st.integers(1, 40))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.write(lambda tx: miss_due(tx, self.now))

    @rule(load=st.none() | st.sampled_from([0.5, 0.95]), limit=st.integers(1, SLOTS))
    def look(self, load: float | None, limit: int) -> None:
        self._look(load=load, limit=limit)

    def _look(self, *, load: float | None = None, limit: int = SLOTS) -> bool:
        self.now += 1
        rules = Rules(strategy=self.strategy, max_concurrent_flows=SLOTS, load=load)
        before = self.states()
        counts = self.in_use()
        found = self.write(lambda tx: claim(tx, OWNER, self.now, limit=limit, rules=rules))
        assert len(found.runs) <= limit
        for run in found.runs:
            assert before[run.run_id] == "scheduled"
            self.known[run.run_id].claims += 1
            assert self.known[run.run_id].claims == 1
            self.running[run.run_id] = run
        after = self.in_use()
        for key, size in self.limits.items():  # a smaller one than before is no reason to end what runs
            assert after[key] <= max(size, counts[key])
        return bool(found.runs) or found.has_more or self.states() != before

    # What must hold
    def states(self) -> dict[str, str]:
        return {row[0]: row[1] for row in self.rows("SELECT run_id, state FROM runs")}

    def in_use(self) -> dict[str, int]:
        flows = [self.known[run_id].flow_id for run_id in self.running]
        return {
            "flow:limited": flows.count("limited"),
            "tag:slow": sum("slow" in FLOWS[flow_id] for flow_id in flows),
        }

    @invariant()
    def no_run_is_lost(self) -> None:
        states = self.states()
        assert states.keys() == self.known.keys()
        assert {run_id for run_id, state in states.items() if state == "running"} == self.running.keys()
        assert len(self.running) <= SLOTS

    @invariant()
    def no_pool_is_exceeded(self) -> None:
        for pool, size in POOLS.items():  # who demands more than there is takes it alone
            assert sum(min(self.known[run_id].demands.get(pool, 0.0), size) for run_id in self.running) <= size

    @invariant()
    def nothing_runs_before_what_it_waits_for(self) -> None:
        for run_id, on_failure, ended in self.rows("SELECT run_id, on_failure, ended FROM dependencies"):
            if run_id in self.running or self.known[run_id].claims:
                assert ended == "completed" or (ended is not None and on_failure == "run")

    def _drain(self) -> None:
        """Every run whose causes end must end."""
        for run_id, state in self.states().items():
            if state == "paused":
                self.write(lambda tx, run_id=run_id: request(tx, run_id, "resume", self.now, reason=None, actor=None))
        for flow_id in FLOWS:  # the first run of each flow comes, for those that wait for it
            if not any(known.flow_id == flow_id for known in self.known.values()):
                self._submit_plain(flow_id)
        for _ in range(20 * len(self.known) + 20):
            has_moved = self._look()
            self.no_run_is_lost()
            self.no_pool_is_exceeded()
            for run_id in list(self.running):
                self._end(run_id, RunState.COMPLETED)
                has_moved = True
            if not has_moved:
                break
        left = {run_id: state for run_id, state in self.states().items() if state not in TERMINAL_RUN_STATES}
        assert left == {}
        for run_id, kind in self.rows("SELECT run_id, json_extract(error, '$.kind') FROM runs WHERE state = 'failed'"):
            assert self.known[run_id].claims == 1 or kind == "dependency_failed"
        assert verify(self.store.path).problems == []
        assert self.rows("SELECT 1 FROM runs WHERE blocked IS NOT NULL") == []

    def _submit_plain(self, flow_id: str) -> None:
        run = self._run(f"run_{len(self.known)}", flow_id, queue_key=self.now)
        self.write(lambda tx: submit(tx, run))
        self.known[run.run_id] = Known(flow_id, {})

    def _run(self, run_id: str, flow_id: str, **fields: Any) -> NewRun:
        fields = {"priority": 2, **fields}
        return NewRun(
            run_id=run_id,
            flow_id=flow_id,
            version=1,
            name=flow_id,
            framework="native",
            inputs="{}",
            total=1,
            created_at=self.now,
            **fields,
        )


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=600 if IS_FULL else 40,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
