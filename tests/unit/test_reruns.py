"""What a new run takes over from the one that it repeats."""

from __future__ import annotations

import json
from typing import Any

from contexten.extensions.flow.definition import Plan, WorkflowDefinition, compile_plan
from contexten.extensions.flow.runs.reruns import downstream, taken_over, unchanged_tasks
from contexten.extensions.flow.states import TaskState
from contexten.extensions.flow.store import StoredText


def plan_of(*tasks: dict[str, Any], mode: str = "parallel") -> Plan:
    stages = [{"name": "only", "execution_mode": mode, "tasks": list(tasks)}]
    return compile_plan(WorkflowDefinition.model_validate_json(json.dumps({"stages": stages})))


def task(name: str, *after: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "depends_on": list(after), "parameters": parameters}


CHAIN = plan_of(task("a"), task("b", "a"), task("c", "b"), task("d"))


def kept(old: Plan, new: Plan, *completed: str, settled: tuple[str, ...] = (), again: str | None = None) -> list[str]:
    outputs = [(name, StoredText.of("1")) for name in completed]
    rows = taken_over(outputs, old, new, settled={*completed, *settled}, again=again, at=5.0)
    assert all(row.state is TaskState.COMPLETED and row.taken_over and row.ended_at == 5.0 for row in rows)
    return [row.task for row in rows]


def test_the_same_definition_changes_nothing() -> None:
    assert unchanged_tasks(CHAIN, CHAIN) == {"a", "b", "c", "d"}


def test_a_changed_task_changes_all_that_depends_on_it() -> None:
    new = plan_of(task("a"), task("b", "a", mended=True), task("c", "b"), task("d"))
    assert unchanged_tasks(CHAIN, new) == {"a", "d"}


def test_a_new_dependency_changes_its_task() -> None:
    new = plan_of(task("a"), task("b", "a"), task("c", "b", "d"), task("d"))
    assert unchanged_tasks(CHAIN, new) == {"a", "b", "d"}


def test_a_task_that_left_takes_nothing_with_it() -> None:
    assert unchanged_tasks(CHAIN, plan_of(task("d"))) == {"d"}


def test_only_what_completed_is_taken_over() -> None:
    assert kept(CHAIN, CHAIN, "a", "d") == ["a", "d"]


def test_what_depends_on_a_task_that_will_run_again_runs_again() -> None:
    plan = plan_of(task("a"), {**task("b"), "when": "tasks.a.state == 'failed'"}, task("c", "b"))
    assert kept(plan, plan, "b", "c") == []


def test_a_task_skipped_by_its_condition_keeps_what_depends_on_it() -> None:
    assert kept(CHAIN, CHAIN, "a", "c", settled=("b",)) == ["a", "c"]


def test_rerun_from_leaves_out_the_task_and_all_after_it_by_dependency_or_order() -> None:
    assert downstream(CHAIN, "b") == {"b", "c"}
    assert kept(CHAIN, CHAIN, "a", "b", "c", "d", again="b") == ["a", "d"]
    sequence = plan_of(task("a"), task("b"), task("c"), mode="sequential")
    assert kept(sequence, sequence, "a", "b", "c", again="b") == ["a"]
