"""The walk through a plan: what is ready, what is skipped and why, when it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from contexten.extensions.flow.definition import Plan, Scope, WorkflowDefinition, compile_plan
from contexten.extensions.flow.definition.graph import Graph
from contexten.extensions.flow.execution.progression import Progression, Verdict
from contexten.extensions.flow.states import TaskState


def plan_of(*stages: dict[str, Any], **fields: Any) -> Plan:
    return compile_plan(WorkflowDefinition.model_validate_json(json.dumps({"stages": stages, **fields})))


class Walk:
    """A progression whose ready tasks the test ends one by one."""

    def __init__(
        self,
        plan: Plan,
        finished: Mapping[str, tuple[TaskState, str | None]] | None = None,
        started: tuple[str, ...] = (),
    ) -> None:
        self.states: dict[str, str] = {name: str(state) for name, (state, _) in (finished or {}).items()}
        scope = Scope(task=lambda name: {"output": None, "state": self.states.get(name, "pending"), "error": None})
        self.progression = Progression(
            plan, Graph.of(plan), finished or {}, started, lambda template: template.test(scope)
        )
        self.ready: list[str] = []
        self.reasons: dict[str, str] = {}
        self.decide()

    def decide(self) -> None:
        for task, verdict, reason in self.progression.decide():
            if verdict is Verdict.READY:
                self.ready.append(task)
            else:
                self.states[task] = "skipped" if verdict is Verdict.SKIPPED else "failed"
                self.reasons[task] = reason

    def end(self, task: str, state: TaskState = TaskState.COMPLETED) -> None:
        self.ready.remove(task)
        self.states[task] = str(state)
        self.progression.finish(task, state)
        self.decide()

    @property
    def is_done(self) -> bool:
        return self.progression.is_done


def stage(name: str, *tasks: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "tasks": [{"name": task} if isinstance(task, str) else task for task in tasks], **fields}


FAILED = TaskState.FAILED


def test_sequential_tasks_become_ready_one_by_one_and_parallel_ones_together() -> None:
    walk = Walk(plan_of(stage("s", "a", "b"), stage("p", "c", "d", execution_mode="parallel")))
    assert walk.ready == ["a"]
    walk.end("a")
    assert walk.ready == ["b"]
    walk.end("b")
    assert walk.ready == ["c", "d"]
    walk.end("d")
    assert not walk.is_done
    walk.end("c")
    assert walk.is_done


def test_a_failure_without_flags_skips_the_rest_of_its_stage_and_all_later_ones() -> None:
    walk = Walk(plan_of(stage("s", "a", "b"), stage("t", "c"), stage("u", "d")))
    walk.end("a", FAILED)
    assert walk.is_done
    assert walk.reasons == dict.fromkeys("bcd", "upstream_failed: a")
    assert walk.progression.failures(tolerated=False) == ["a"]


def test_continue_on_task_failure_lets_its_stage_and_later_ones_go_on() -> None:
    walk = Walk(plan_of(stage("s", "a", "b", continue_on_task_failure=True), stage("t", "c")))
    walk.end("a", FAILED)
    walk.end("b")
    walk.end("c")
    assert walk.is_done
    assert walk.progression.failures(tolerated=True) == ["a"]
    assert walk.progression.failures(tolerated=False) == []


def test_continue_on_failure_lets_later_stages_go_on_but_not_the_stage_itself() -> None:
    walk = Walk(plan_of(stage("s", "a", "b"), stage("t", "c"), continue_on_failure=True))
    walk.end("a", FAILED)
    assert walk.reasons == {"b": "upstream_failed: a"}
    assert walk.ready == ["c"]


def test_flags_do_not_let_what_depends_on_the_failed_task_run() -> None:
    tasks: list[Any] = ["a", {"name": "b", "depends_on": ["a"]}, {"name": "c", "depends_on": ["b"]}, "d"]
    walk = Walk(plan_of(stage("s", *tasks, execution_mode="parallel", continue_on_task_failure=True)))
    assert walk.ready == ["a", "d"]
    walk.end("a", FAILED)
    walk.end("d")
    assert walk.is_done
    assert walk.reasons["b"] == "upstream_failed: a"
    assert walk.reasons["c"].startswith("upstream_failed")


def test_a_skip_by_its_own_condition_satisfies_dependents_and_is_no_failure() -> None:
    walk = Walk(plan_of(stage("s", {"name": "a", "when": "false"}, {"name": "b", "depends_on": ["a"]})))
    assert walk.reasons == {"a": "its condition is false"}
    walk.end("b")
    assert walk.is_done
    assert walk.progression.failures(tolerated=False) == []


def test_a_condition_that_names_the_failed_task_is_asked_instead_of_the_failure() -> None:
    plan = plan_of(stage("s", "a", {"name": "mend", "when": "tasks.a.state == 'failed'"}, "c"))
    walk = Walk(plan)
    walk.end("a", FAILED)
    assert walk.ready == ["mend"]
    walk.end("mend")
    assert walk.is_done
    assert walk.reasons == {"c": "upstream_failed: a"}
    fine = Walk(plan)
    fine.end("a")
    assert fine.reasons == {"mend": "its condition is false"}
    assert fine.ready == ["c"]


def test_a_stages_condition_that_names_the_failed_task_lets_the_stage_run() -> None:
    walk = Walk(plan_of(stage("s", "a"), stage("mend", "b", when="tasks.a.state == 'failed'")))
    walk.end("a", FAILED)
    assert walk.ready == ["b"]


def test_a_stages_false_condition_skips_its_tasks_and_later_stages_go_on() -> None:
    walk = Walk(plan_of(stage("s", "a", "b", when="1 > 2"), stage("t", "c")))
    assert walk.reasons == dict.fromkeys("ab", "the condition of stage s is false")
    assert walk.ready == ["c"]


def test_a_condition_that_cannot_be_evaluated_fails_its_task_or_all_tasks_of_its_stage() -> None:
    plan = plan_of(stage("s", {"name": "a", "when": "tasks.z.output.x > 1", "depends_on": ["z"]}), stage("t", "y"),
                   stage("u", "z", depends_on=[]))  # fmt: skip
    walk = Walk(plan)
    assert walk.ready == ["z"]
    walk.end("z")
    assert walk.states["a"] == "failed"
    assert walk.reasons["y"] == "upstream_failed: a"


def test_independent_stages_do_not_feel_each_others_failures() -> None:
    walk = Walk(plan_of(stage("s", "a"), stage("t", "b", "c", depends_on=[]), stage("u", "d", depends_on=["t"])))
    walk.end("a", FAILED)
    walk.end("b")
    walk.end("c")
    walk.end("d")
    assert walk.is_done


def test_a_stage_without_tasks_is_passed_through() -> None:
    walk = Walk(plan_of(stage("s", "a"), stage("empty"), stage("t", "b")))
    walk.end("a")
    walk.end("b")
    assert walk.is_done


def test_a_failure_passes_through_a_stage_without_tasks() -> None:
    walk = Walk(plan_of(stage("s", "a"), stage("empty"), stage("t", "b")))
    walk.end("a", FAILED)
    assert walk.is_done
    assert walk.reasons == {"b": "upstream_failed: a"}


def test_a_ready_task_that_has_not_started_is_not_wanted_after_a_failure_of_its_stage() -> None:
    walk = Walk(plan_of(stage("s", "a", "b", execution_mode="parallel")))
    assert walk.progression.still_wanted("b") is None
    walk.end("a", FAILED)
    late = walk.progression.still_wanted("b")
    assert late is not None
    assert (late.verdict, late.reason) == (Verdict.SKIPPED, "upstream_failed: a")


def test_a_restored_walk_goes_on_where_the_other_ended() -> None:
    plan = plan_of(stage("s", "a", "b", "c"), stage("t", "d"))
    walk = Walk(plan, {"a": (TaskState.COMPLETED, None)}, started=("b",))
    assert walk.ready == []  # b is under way, and ends through finish
    walk.ready.append("b")
    walk.end("b")
    assert walk.ready == ["c"]


@pytest.mark.parametrize(
    ("finished", "reasons"),
    [
        ({"a": (FAILED, None)}, {"b": "upstream_failed: a", "c": "upstream_failed: a"}),
        ({"a": (TaskState.SKIPPED, "upstream_failed: x")}, {"b": "upstream_failed: a"}),
        ({"a": (TaskState.SKIPPED, "its condition is false")}, {}),
    ],
)
def test_a_restored_walk_knows_why_earlier_tasks_did_not_complete(
    finished: dict[str, tuple[TaskState, str | None]], reasons: dict[str, str]
) -> None:
    plan = plan_of(stage("s", "a", {"name": "b", "depends_on": ["a"]}, "c"))
    walk = Walk(plan, finished)
    assert {name: reason for name, reason in walk.reasons.items() if name in reasons} == reasons
    assert set(walk.reasons) == set(reasons)


def test_a_wide_stage_is_decided_in_one_step_each() -> None:
    plan = plan_of(stage("s", *(f"t{number}" for number in range(900)), execution_mode="parallel"))
    walk = Walk(plan)
    assert len(walk.ready) == 900
    for task in list(walk.ready):
        walk.end(task)
    assert walk.is_done
