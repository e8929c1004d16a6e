"""Random flows through the real service end as a simple reading of the rules says that they must."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.execution import parking
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.views import RunView

EXAMPLES = 3000 if os.environ.get("CONTEXTEN_CHAOS") == "full" else 100
LIMIT_S = 60.0  # a run that takes longer has lost a wake-up
NAMED = re.compile(r"tasks\.(\w+)")


@dataclass
class Trace:
    """What the agent saw of one run, in order: ("start" | "end", task, item)."""

    entries: list[tuple[str, str, int]] = field(default_factory=list)
    active: Counter[tuple[str, int]] = field(default_factory=Counter)
    twice: list[tuple[str, int]] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)

    def index(self, what: str, task: str) -> list[int]:
        return [n for n, entry in enumerate(self.entries) if entry[:2] == (what, task)]


class Actor:
    """The agent: does what a task's parameters say, and writes down when."""

    name = "actor"
    agent_type = "test"
    tools = ("act",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.traces: dict[str, Trace] = {}

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        trace = self.traces.setdefault(context.run_id, Trace())
        item = -1 if context.item_index is None else context.item_index
        key = (context.task, item)
        trace.entries.append(("start", *key))
        trace.active[key] += 1
        if trace.active[key] > 1:
            trace.twice.append(key)
        room = task.parameters.get("room")
        if room is not None and sum(n for (name, _), n in trace.active.items() if name == context.task) > room:
            trace.crowded.append(context.task)
        try:
            for _ in range(task.parameters["takes"]):
                await anyio.sleep(0.0005)
            script = task.parameters["script"]
            outcome = script[min(context.attempt, len(script)) - 1] if item not in task.parameters["bad"] else "fail"
            if outcome == "fail":
                raise AttemptError("as told", kind="network")
            if outcome == "invalid":
                raise AttemptError("as told", kind="invalid")
            return {"ok": True, "item": item}
        finally:
            trace.active[key] -= 1
            trace.entries.append(("end", *key))


# Definitions
@st.composite
def conditions(draw: st.DrawFn, earlier: list[str]) -> str:
    kinds = ["{{ true }}", "{{ false }}", "true"]
    if earlier:
        name = draw(st.sampled_from(earlier))
        kinds += [f"tasks.{name}.state == '{state}'" for state in ("completed", "failed", "skipped")]
        kinds += [f"{{{{ tasks.{name}.output.ok }}}}", f"tasks.{name}.state != 'failed'"]
    return draw(st.sampled_from(kinds))


@st.composite
def tasks(draw: st.DrawFn, name: str, earlier: list[str], stages_before: list[str]) -> dict[str, Any]:
    task: dict[str, Any]
    if draw(st.integers(0, 5)) == 0:
        task = {"name": name, "type": "wait", "parameters": {"seconds": 0.004}}
        if draw(st.booleans()):
            task["depends_on"] = earlier[-1:]
        return task
    attempts = draw(st.integers(1, 3))
    script = draw(st.lists(st.sampled_from(["ok", "ok", "fail", "invalid"]), min_size=1, max_size=3))
    task = {
        "name": name,
        "type": "test",
        "required_tools": ["act"],
        "retry": {"max_attempts": attempts, "delay_s": 0},
        "parameters": {"script": script, "bad": [], "takes": draw(st.integers(0, 2))},
    }
    if draw(st.booleans()) and earlier:
        task["depends_on"] = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True))
    if stages_before and draw(st.integers(0, 7)) == 0:
        task["depends_on"] = [*task.get("depends_on", []), f"stage:{draw(st.sampled_from(stages_before))}"]
    if draw(st.integers(0, 4)) == 0 and earlier:
        task["parameters"]["seen"] = f"{{{{ tasks.{draw(st.sampled_from(earlier))}.state }}}}"
    if draw(st.integers(0, 3)) == 0:
        task["when"] = draw(conditions(earlier))
    if draw(st.integers(0, 4)) == 0:
        size = draw(st.integers(0, 4))
        task["for_each"] = list(range(size))
        task["continue_on_item_failure"] = draw(st.booleans())
        task["parameters"]["bad"] = draw(st.lists(st.integers(0, 3), max_size=2, unique=True))
        task["parameters"]["script"] = ["ok"]
        task["max_parallel"] = task["parameters"]["room"] = draw(st.integers(1, 3))
    if draw(st.integers(0, 4)) == 0:
        task["cache"] = {}  # the key comes with the run
    return task


@st.composite
def compensations(draw: st.DrawFn, name: str, earlier: list[str]) -> list[dict[str, Any]]:
    """The on_failure of a task (or of the flow, whose name is empty)."""
    found = []
    for number in range(draw(st.integers(1, 2))):
        script = draw(st.lists(st.sampled_from(["ok", "ok", "fail", "invalid"]), min_size=1, max_size=2))
        task: dict[str, Any] = {
            "name": f"{name or 'all'}_{number}",
            "type": "test",
            "required_tools": ["act"],
            "retry": {"max_attempts": draw(st.integers(1, 2)), "delay_s": 0},
            "parameters": {"script": script, "bad": [], "takes": draw(st.integers(0, 1)), "of": "{{ failure.task }}"},
        }
        if draw(st.integers(0, 3)) == 0:
            other = draw(st.sampled_from(earlier))
            task["when"] = draw(
                st.sampled_from(["false", "failure.kind == 'network'", f"tasks.{other}.state == 'failed'"])
            )
        found.append(task)
    return found


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    stages: list[dict[str, Any]] = []
    earlier: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        names = [f"t{number}{letter}" for letter in "abcd"[: draw(st.integers(1, 4))]]
        mode = draw(st.sampled_from(["sequential", "parallel"]))
        before = [stage["name"] for stage in stages]
        stage: dict[str, Any] = {
            "name": f"s{number}",
            "execution_mode": mode,
            "continue_on_task_failure": draw(st.booleans()),
            "tasks": [],
        }
        if mode == "parallel" and draw(st.booleans()):
            stage["max_parallel"] = draw(st.integers(1, 3))
        if before and draw(st.integers(0, 2)) == 0:
            stage["depends_on"] = draw(st.lists(st.sampled_from(before), max_size=2, unique=True))
        # a task of a stage that does not come before, by stages, would be no cycle either: it only waits
        outside = list(earlier)
        if draw(st.integers(0, 3)) == 0:
            stage["when"] = draw(conditions(outside))
        for name in names:
            stage["tasks"].append(draw(tasks(name, list(earlier), before)))
            earlier.append(name)
        stages.append(stage)
    definition: dict[str, Any] = {"stages": stages, "continue_on_failure": draw(st.booleans())}
    if draw(st.booleans()):
        for task in [task for stage in stages for task in stage["tasks"]]:
            if draw(st.integers(0, 3)):
                task["on_failure"] = draw(compensations(task["name"], earlier))
        definition["on_failure"] = draw(compensations("", earlier))
    return definition


NUMBERS = count()


def with_own_keys(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition, its cached tasks with keys that no other has: they serve its reruns only."""
    for task in [task for stage in definition["stages"] for task in stage["tasks"]]:
        if "cache" in task:
            key = f"{next(NUMBERS)} {{{{ index }}}}" if "for_each" in task else str(next(NUMBERS))
            task["cache"] = {"key": key, "ttl_s": 3600}
    return definition


# The reading of the rules
class Reading:
    """What must have become of each task, given when the agent began and ended each.

    Only one thing depends on time, and is read from what was `found`: in a parallel stage that does not tolerate
    failures, a task that has not started when another fails does not start any more.
    """

    def __init__(
        self, definition: dict[str, Any], trace: Trace, kept: set[str], found: dict[str, str], *, is_rerun: bool
    ) -> None:
        self.is_rerun = is_rerun
        self.flow = definition
        self.trace = trace
        self.kept = kept
        self.found = found
        self.stages = {stage["name"]: stage for stage in definition["stages"]}
        self.stage_of = {task["name"]: stage for stage in definition["stages"] for task in stage["tasks"]}
        self.task = {task["name"]: task for stage in definition["stages"] for task in stage["tasks"]}
        self.states: dict[str, str] = {}
        self.unsatisfied: set[str] = set()
        self.passed_on: dict[str, set[str]] = {}
        previous = None
        for stage in definition["stages"]:
            stage.setdefault("depends_on", [previous] if previous else [])
            previous = stage["name"]
            self._read_stage(stage)

    def named(self, name: str) -> set[str]:
        """The tasks that must end before it because it names them."""
        task = self.task[name]
        found: set[str] = set()
        for other in task.get("depends_on", []):
            if other.startswith("stage:"):
                found |= {member["name"] for member in self.stages[other[6:]]["tasks"]}
            else:
                found.add(other)
        return found | set(NAMED.findall(str(task.get("when", "")) + str(task["parameters"].get("seen", ""))))

    def before(self, name: str) -> set[str]:
        """All tasks that must have ended when it starts."""
        stage = self.stage_of[name]
        members = [task["name"] for task in stage["tasks"]]
        found = self.named(name) | self._gate(stage)
        if stage["execution_mode"] == "sequential":
            found |= set(members[: members.index(name)])
        return found

    def _gate(self, stage: dict[str, Any]) -> set[str]:
        found = set(NAMED.findall(str(stage.get("when", ""))))
        for other in stage["depends_on"]:
            found |= self._gate(self.stages[other]) | {task["name"] for task in self.stages[other]["tasks"]}
        return found

    def _holds(self, condition: str) -> bool | None:
        """None: it cannot be evaluated."""
        text = condition.strip("{} ")
        if text in ("true", "false"):
            return text == "true"
        (name,) = NAMED.findall(text)
        if text.endswith(".ok"):
            is_single = "for_each" not in self.task[name] and self.task[name]["type"] != "wait"
            return True if self.states[name] == "completed" and is_single else None
        wanted = text.split("'")[1]
        state = "skipped" if self.states[name] == "upstream" else self.states[name]
        return (state == wanted) is ("==" in text)

    def _read_stage(self, stage: dict[str, Any]) -> None:
        blocked: set[str] = set().union(*(self.passed_on[name] for name in stage["depends_on"]))
        verdict: bool | None = True
        if "when" in stage:
            blocked -= set(NAMED.findall(stage["when"]))
            verdict = self._holds(stage["when"])
        failed: set[str] = set()
        for task in stage["tasks"]:
            name = task["name"]
            self.states[name] = state = self._read_task(name, stage, blocked, verdict, failed)
            if state == "failed":
                failed.add(name)
            if state in ("failed", "upstream"):
                self.unsatisfied.add(name)
        own = set() if stage["continue_on_task_failure"] else failed
        self.passed_on[stage["name"]] = set() if self.flow["continue_on_failure"] else blocked | own

    def _read_task(
        self, name: str, stage: dict[str, Any], blocked: set[str], verdict: bool | None, failed: set[str]
    ) -> str:
        if name in self.kept:
            return "completed"
        task = self.task[name]
        tolerated = set(NAMED.findall(str(task.get("when", ""))))
        if blocked - tolerated:
            return "upstream"
        if verdict is not True:
            return "skipped" if verdict is False else "failed"
        if (self.named(name) & self.unsatisfied) - tolerated:
            return "upstream"
        is_strict = not stage["continue_on_task_failure"]
        if stage["execution_mode"] == "sequential" and is_strict and failed - tolerated:
            return "upstream"
        if self.found[name] == "upstream" and self._may_be_late(name, stage, tolerated):
            return "upstream"
        if "when" in task:
            holds = self._holds(task["when"])
            if holds is not True:
                return "skipped" if holds is False else "failed"
        if task["type"] == "wait":
            return "completed"
        may_be_served = self.is_rerun and "cache" in task
        if not self.trace.index("start", name) and task.get("for_each") != [] and not may_be_served:
            return "to be run"
        return self._outcome(task)

    def _may_be_late(self, name: str, stage: dict[str, Any], tolerated: set[str]) -> bool:
        """Whether another task may have failed before this one, of the same parallel stage, could start."""
        if stage["execution_mode"] == "sequential" or stage["continue_on_task_failure"]:
            return False
        others = {task["name"] for task in stage["tasks"]} - {name} - tolerated
        return any(self.found[other] == "failed" and name not in self.before(other) for other in others)

    @staticmethod
    def bad_items(task: dict[str, Any]) -> set[int]:
        """The items that fail, each time that they are tried."""
        return set(task["parameters"]["bad"]) & set(task["for_each"]) if "for_each" in task else set()

    @staticmethod
    def _outcome(task: dict[str, Any]) -> str:
        if "for_each" in task:
            bad = Reading.bad_items(task)
            return "failed" if bad and not task["continue_on_item_failure"] else "completed"
        return "completed" if Reading.tries(task)[-1] == "ok" else "failed"

    @staticmethod
    def tries(task: dict[str, Any]) -> list[str]:
        """The outcome of each attempt."""
        script, tries = task["parameters"]["script"], []
        for number in range(task["retry"]["max_attempts"]):
            tries.append(script[min(number, len(script) - 1)])
            if tries[-1] != "fail":
                break
        return tries


def check(definition: dict[str, Any], run: RunView, trace: Trace, kept: set[str], *, is_rerun: bool = False) -> None:
    """Compare a run that ended with the reading."""
    assert not trace.twice, f"ran twice at once: {trace.twice}"
    assert not trace.crowded, f"more items at once than max_parallel: {trace.crowded}"
    assert not +trace.active, "ended while an attempt was under way"
    found = {
        view.name: "upstream" if (view.reason or "").startswith("upstream_failed") else str(view.state)
        for view in run.tasks or []
    }
    attempts = {view.name: view.attempts for view in run.tasks or []}
    reading = Reading(definition, trace, kept, found, is_rerun=is_rerun)
    for name, expected in reading.states.items():
        assert found[name] == expected, f"{name} is {found[name]}, by the rules {expected}: {found}"
        starts = trace.index("start", name)
        if name in kept or expected in ("skipped", "upstream"):
            assert not starts, f"{name} was run"
        for other in reading.before(name):
            ends = trace.index("end", other)
            assert not starts or not ends or max(ends) < min(starts), f"{name} started before {other} had ended"
        if starts:
            assert len(starts) == attempts[name]
        if starts and "for_each" not in reading.task[name]:
            assert attempts[name] == len(reading.tries(reading.task[name]))
    _check_room(definition, trace)
    failed = [name for name, state in found.items() if state == "failed"]
    fatal = [
        name
        for name in failed
        if name in reading.task
        and not definition["continue_on_failure"]
        and not reading.stage_of[name]["continue_on_task_failure"]
    ]
    assert run.state == ("failed" if fatal else "completed"), f"{found}"
    lost_items = [
        name
        for name, state in found.items()
        if state == "completed" and name in reading.task and name not in kept and reading.bad_items(reading.task[name])
    ]
    assert sorted(run.failed_tasks or []) == sorted(failed + lost_items)
    check_compensation(definition, run, trace, found)


def check_compensation(definition: dict[str, Any], run: RunView, trace: Trace, found: dict[str, str]) -> None:
    """That the on_failure tasks of what failed have run, no others, one after another and in the right order."""
    views = {view.name: view for view in run.tasks or []}
    tasks = [task for stage in definition["stages"] for task in stage["tasks"]]
    failed = [task for task in tasks if found[task["name"]] == "failed"]
    failed.reverse()  # of those that ended at the same time
    failed.sort(key=lambda task: views[task["name"]].ended_at or "", reverse=True)
    due = [(other, views[task["name"]].error) for task in failed for other in task.get("on_failure", [])]
    if run.state == "failed":
        due += [(other, run.error) for other in definition.get("on_failure", [])]
    begun = []
    for task, error in due:
        name, condition = task["name"], task.get("when", "true")
        kind = error.kind if error is not None else ""
        other = NAMED.findall(condition)
        holds = (
            found[other[0]] == "failed" if other else condition == "true" or ("kind" in condition and kind == "network")
        )
        expected = Reading._outcome(task) if holds else "skipped"
        assert found[name] == expected, f"{name} is {found[name]}, by the rules {expected}: {found}"
        assert len(trace.index("start", name)) == (len(Reading.tries(task)) if holds else 0)
        begun += [name] * holds
    everything = [other for task in (*tasks, definition) for other in task.get("on_failure", [])]
    for task in everything:
        if task not in [other for other, _ in due]:
            assert found[task["name"]] == "skipped"
            assert not trace.index("start", task["name"])
    names = {task["name"] for task in everything}
    undone = [(what, name) for what, name, _ in trace.entries if name in names]
    assert undone == [(what, name) for _, name in undone[::2] for what in ("start", "end")], "two at once"
    assert [name for what, name, _ in trace.entries[len(trace.entries) - len(undone) :] if name in names] == [
        name for _, name in undone
    ], "before all others had ended"
    order = list(dict.fromkeys(name for _, name in undone))
    assert sorted(order) == sorted(begun)
    causes = {other["name"]: task for task in failed for other in task.get("on_failure", [])}
    for one, later in pairwise(order):
        if one in causes and later in causes:
            first, second = (views[causes[name]["name"]].ended_at or "" for name in (one, later))
            assert first >= second, f"{one} before {later}"
        else:
            assert later not in causes, "the flow's own before a task's"
        if causes.get(one) == causes.get(later):
            assert begun.index(one) < begun.index(later), f"{one} before {later}"


def _check_room(definition: dict[str, Any], trace: Trace) -> None:
    for stage in definition["stages"]:
        room = 1 if stage["execution_mode"] == "sequential" else stage.get("max_parallel")
        members = {task["name"] for task in stage["tasks"]}
        active: Counter[str] = Counter()
        for what, task, _ in trace.entries:
            if task in members:
                active[task] += 1 if what == "start" else -1
                assert room is None or len(+active) <= room, f"{len(+active)} tasks of {stage['name']} at once"


# The tests
class World:
    """One open service for all examples, on a thread of its own."""

    def __init__(self, portal: BlockingPortal, service: FlowService, actor: Actor) -> None:
        self.portal, self.service, self.actor = portal, service, actor

    def run(self, definition: dict[str, Any]) -> RunView:
        view: RunView = self.portal.call(self._run, definition)
        return view

    async def _run(self, definition: dict[str, Any]) -> RunView:
        run = await self.service.execute_flow(workflow_def=definition)
        return await self._end(run.run_id)

    def rerun(self, run: RunView, task: str) -> tuple[RunView, set[str]]:
        answer: tuple[RunView, set[str]] = self.portal.call(self._rerun, run, task)
        return answer

    async def _rerun(self, run: RunView, task: str) -> tuple[RunView, set[str]]:
        if run.state == "failed":
            answer = await self.service.control(run.run_id, "retry")
        else:
            answer = await self.service.control(run.run_id, "rerun_from", task=task)
        return await self._end(answer.run_id), set(answer.taken_over or [])

    async def _end(self, run_id: str) -> RunView:
        with anyio.fail_after(LIMIT_S):
            await self.service.wait(run_id)
        return await self.service.get_run(run_id, detail="tasks")


@pytest.fixture(scope="module", params=[100, 2], ids=["many places", "two places"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # every wait gives the run's slot back, however short it is
    patch = pytest.MonkeyPatch()
    patch.setattr(parking, "PARK_AT_LEAST_S", 0.0)
    database: Path = tmp_path_factory.mktemp("execution") / "flow.sqlite3"
    actor = Actor(capacity=request.param)
    service = FlowService(FlowSettings(database=database, retry_delay_s=0, circuit_failures=0), agents=[actor])
    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(service):
        yield World(portal, service, actor)
        report = portal.call(service.verify)
        assert report.ok, report.problems
        assert report.runs > 0
    patch.undo()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(definition=definitions(), again=st.none() | st.integers(0, 20))
def test_every_flow_ends_as_the_rules_say(world: World, definition: dict[str, Any], again: int | None) -> None:
    run = world.run(with_own_keys(definition))
    check(definition, run, world.actor.traces.pop(run.run_id, Trace()), set())
    if again is None:
        return
    names = [task["name"] for stage in definition["stages"] for task in stage["tasks"]]
    rerun, kept = world.rerun(run, names[again % len(names)])
    check(definition, rerun, world.actor.traces.pop(rerun.run_id, Trace()), kept, is_rerun=True)
    assert rerun.state == run.state
