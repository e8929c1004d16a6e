"""What every engine keeps to: the same flows, with the same outputs, states, retries, limits, events and recovery.

The work is a language model's in each of them; the model is scripted, the engines' libraries are real.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from contexten.extensions.flow import FlowService
from contexten.extensions.flow.views import RunView

from .engine_bench import (
    ENGINES,
    PATIENCE_S,
    Bench,
    Obedient,
    flow,
    job,
    life,
    pool_worker,
    settings_for,
    stage,
    template_job,
)
from .model_server import Fault, Hang, ModelRequest, Reply, serving

SCORE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "score": {"type": "number"}},
    "required": ["name", "score"],
    "additionalProperties": False,
}
TWO = flow(stage(job("first", "1st"), job("second", "2nd")))


@pytest.fixture(scope="module", params=ENGINES)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch
) -> Iterator[Bench]:
    engine, mind = str(request.param), Obedient()
    framework, _, pool = engine.partition(":")
    folder = tmp_path_factory.mktemp(framework)
    with ExitStack() as stack:
        model = stack.enter_context(serving(mind))
        if framework == "prefect":
            server = request.getfixturevalue("prefect_server")
            monkeypatch_module.setenv("PREFECT_API_URL", server.url)
            monkeypatch_module.setenv("PREFECT_HOME", str(folder))
        if pool:
            stack.enter_context(pool_worker(server, pool, model, folder))
        portal = stack.enter_context(start_blocking_portal())
        service = FlowService(settings_for(folder, model))
        stack.enter_context(portal.wrap_async_context_manager(service))
        yield Bench(engine, portal, model, mind, service)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(autouse=True)
def _obedience(bench: Bench) -> None:
    bench.mind.before = lambda answer, request: None


def test_tasks_run_one_after_another_and_hand_data_on(bench: Bench) -> None:
    second = template_job("second", "{{ tasks.first.output }} and on")
    run = bench.run(flow(stage(job("first", "alpha"), second)))
    assert (run.state, run.output) == ("completed", {"first": "alpha", "second": "alpha and on"})
    assert (run.framework, run.work_pool) == (bench.request["framework"], bench.request.get("work_pool"))


def test_an_agent_knows_the_outputs_before_it_and_the_flow(bench: Bench) -> None:
    seen: list[str] = []

    def watch(answer: Any, request: ModelRequest) -> None:
        if answer == "beta":
            seen.append(json.dumps(request.body))

    bench.mind.before = watch
    definition = flow(
        stage(
            {"name": "made", "required_tools": ["data_processor"], "parameters": {"data": "marmalade", "query": "@"}},
            job("reads", "beta"),
        ),
        name="A breakfast",
        context={"environment": "kitchen"},
    )
    assert bench.run(definition).state == "completed"
    assert all(word in seen[0] for word in ("marmalade", "A breakfast", "kitchen"))


def test_parallel_tasks_are_under_way_together(bench: Bench) -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE_S)

    def meet(answer: Any, request: ModelRequest) -> None:
        meeting.wait()

    bench.mind.before = meet
    run = bench.run(flow(stage(*(job(name, name) for name in ("a", "b", "c")), mode="parallel")))
    assert (run.state, run.output) == ("completed", {"a": "a", "b": "b", "c": "c"})


def test_a_graph_of_tasks_is_walked_in_its_order(bench: Bench) -> None:
    asked: list[Any] = []

    def note(answer: Any, request: ModelRequest) -> None:
        asked.append(answer)

    bench.mind.before = note
    tasks = [
        job("last", "last", depends_on=["left", "right"]),
        job("left", "left", depends_on=["first"]),
        job("right", "right", depends_on=["first"]),
        job("first", "first"),
    ]
    run = bench.run(flow(stage(*tasks, mode="parallel")))
    assert run.state == "completed"
    order = list(dict.fromkeys(asked))
    assert (order[0], set(order[1:3]), order[3]) == ("first", {"left", "right"}, "last")


def test_a_failed_attempt_is_made_again(bench: Bench) -> None:
    faults = [Fault(500)]

    def fail_once(answer: Any, request: ModelRequest) -> Reply | None:
        return faults.pop() if faults else None

    bench.mind.before = fail_once
    run = bench.run(flow(stage(job("job", "done", retry={"max_attempts": 3, "delay_s": 0.01}))))
    assert (run.state, run.output, bench.tasks(run)["job"].attempts) == ("completed", {"job": "done"}, 2)


def _cut_off(bench: Bench, at: str, definition: Callable[[float], dict[str, Any]]) -> RunView:
    """The run whose time, which `definition` is given, was up in the middle of the model's call. It gets more of it on
    a machine that is too busy to come so far."""
    bench.run(flow(stage(job("warm", "up"))))
    reached = bench.hang(at)
    for limit_s in (1.0, 5.0, 25.0):
        run = bench.run(definition(limit_s))
        if reached.is_set():
            break
    assert reached.is_set()
    assert bench.model.left.wait(PATIENCE_S)  # nobody waits for the answer
    return run


def test_an_attempt_ends_at_its_timeout(bench: Bench) -> None:
    run = _cut_off(bench, "never", lambda limit_s: flow(stage(job("job", "never", timeout_s=limit_s))))
    assert (run.state, run.error and run.error.kind) == ("failed", "timeout")


def test_a_run_ends_at_its_timeout_in_the_middle_of_a_task(bench: Bench) -> None:
    run = _cut_off(bench, "2nd", lambda limit_s: {**TWO, "context": {"timeout": limit_s}})
    assert (run.state, run.error and run.error.kind) == ("failed", "timeout")
    assert bench.tasks(run)["first"].state == "completed"


def test_a_run_is_cancelled_in_the_middle_of_a_task(bench: Bench) -> None:
    reached = bench.hang("never")
    run = bench.start(flow(stage(job("job", "never"))))
    assert reached.wait(PATIENCE_S)
    bench.control(run, "cancel")
    assert bench.ended(run.run_id).state == "cancelled"
    assert bench.model.left.wait(PATIENCE_S)


def test_a_paused_run_ends_what_is_under_way_and_goes_on_when_it_is_resumed(bench: Bench) -> None:
    asked: list[Any] = []
    reached, released = threading.Event(), threading.Event()

    def hold(answer: Any, request: ModelRequest) -> None:
        asked.append(answer)
        reached.set()
        assert released.wait(PATIENCE_S)

    bench.mind.before = hold
    run = bench.start(TWO)
    assert reached.wait(PATIENCE_S)
    bench.control(run, "pause")
    released.set()
    paused = bench.portal.call(lambda: bench.service.wait(run.run_id, timeout_s=PATIENCE_S))
    assert (paused.state, asked) == ("paused", ["1st"])
    bench.control(run, "resume")
    ended = bench.ended(run.run_id)
    assert (ended.state, ended.output, asked) == ("completed", {"first": "1st", "second": "2nd"}, ["1st", "2nd"])


def test_failures_are_tolerated_where_the_flow_says_so(bench: Bench) -> None:
    bench.mind.before = lambda answer, request: Fault(400, "no") if answer == "bad" else None
    run = bench.run(flow(stage(job("bad", "bad"), job("good", "good"), continue_on_task_failure=True)))
    assert (run.state, run.failed_tasks) == ("completed", ["bad"])
    strict = bench.run(flow(stage(job("bad", "bad"), job("good", "good"))))
    states = {name: task.state for name, task in bench.tasks(strict).items()}
    assert (strict.state, states) == ("failed", {"bad": "failed", "good": "skipped"})


def test_a_retry_of_a_failed_run_keeps_what_is_done(bench: Bench) -> None:
    asked: list[Any] = []
    faults = [Fault(400, "no")]

    def fail_once(answer: Any, request: ModelRequest) -> Reply | None:
        asked.append(answer)
        return faults.pop() if answer == "2nd" and faults else None

    bench.mind.before = fail_once
    failed = bench.run(TWO)
    assert failed.state == "failed"
    again = bench.ended(bench.control(failed, "retry"))
    assert (again.state, again.output, again.rerun_of) == (
        "completed",
        {"first": "1st", "second": "2nd"},
        failed.run_id,
    )
    assert asked == ["1st", "2nd", "2nd"]


def test_for_each_gives_the_outputs_in_the_order_of_the_items(bench: Bench) -> None:
    run = bench.run(flow(stage(template_job("each", "item {{ item }}", for_each=[1, 2, 3]))))
    assert (run.state, run.output) == ("completed", {"each": ["item 1", "item 2", "item 3"]})


def test_items_that_fail_are_null_where_the_task_tolerates_them(bench: Bench) -> None:
    bench.mind.before = lambda answer, request: Fault(400, "no") if answer in ("item 2", "item 4") else None
    task = template_job("each", "item {{ item }}", for_each=[1, 2, 3, 4, 5], continue_on_item_failure=True)
    run = bench.run(flow(stage(task)))
    assert (run.state, run.output) == ("completed", {"each": ["item 1", None, "item 3", None, "item 5"]})
    assert bench.tasks(run)["each"].items == {"completed": 3, "failed": 2}
    strict = bench.run(flow(stage({**task, "continue_on_item_failure": False})))
    assert (strict.state, strict.error and strict.error.kind) == ("failed", "invalid")


def test_outputs_have_the_shape_that_the_task_asks_for(bench: Bench) -> None:
    run = bench.run(flow(stage(job("typed", {"name": "Ada", "score": 0.5}, output_schema=SCORE))))
    assert (run.state, run.output) == ("completed", {"typed": {"name": "Ada", "score": 0.5}})


def test_an_answer_of_another_shape_fails_the_attempt_as_invalid(bench: Bench) -> None:
    bench.mind.before = lambda answer, request: bench.mind.say({"name": "Ada", "score": "high"}, request)
    task = job("typed", {"name": "Ada", "score": 0.5}, output_schema=SCORE, retry={"max_attempts": 3, "delay_s": 0})
    run = bench.run(flow(stage(task)))
    assert run.error is not None
    assert (run.state, run.error.kind, bench.tasks(run)["typed"].attempts) == ("failed", "invalid", 1)
    assert "score" in run.error.message


def test_events_tell_the_story_in_order(bench: Bench) -> None:
    run = bench.run(TWO)
    assert bench.events(run) == [
        ("run.scheduled", None),
        ("run.running", None),
        ("task.running", "first"),
        ("task.completed", "first"),
        ("task.running", "second"),
        ("task.completed", "second"),
        ("run.completed", None),
    ]


def test_what_the_model_used_is_counted(bench: Bench) -> None:
    run = bench.run(TWO)
    (usage,) = bench.portal.call(lambda: bench.service.get_run(run.run_id)).usage or []
    assert (usage.model, usage.calls) == ("openai/scripted", 2)
    assert usage.input_tokens >= 20
    assert usage.output_tokens >= 10


class Hung:
    """The model's second call of `TWO`, which gets no answer the first time. A worker of a pool outlives who drives the
    run: its call is answered when it is released."""

    def __init__(self, bench: Bench) -> None:
        self.asked: list[Any] = []
        self.reached, self.released = threading.Event(), threading.Event()
        self._bench = bench
        self.repeated = ["1st", "2nd"] if bench.is_pooled else ["1st", "2nd", "2nd"]
        """What is asked by the end of a run that changed hands: an attempt that is under way elsewhere is found again,
        others are made again."""
        bench.model.left.clear()
        bench.mind.before = self._answer

    def _answer(self, answer: Any, request: ModelRequest) -> Reply | None:
        if answer not in ("1st", "2nd"):
            return None
        self.asked.append(answer)
        if answer == "1st" or self.reached.is_set():
            return None
        self.reached.set()
        if not self._bench.is_pooled:
            return Hang()
        assert self.released.wait(PATIENCE_S)
        return None

    def release(self) -> None:
        """The call's end, when who drove the run is gone."""
        self.released.set()
        if not self._bench.is_pooled:
            assert self._bench.model.left.wait(PATIENCE_S)  # no child of it goes on


def test_a_crash_in_the_middle_of_a_call_loses_nothing_that_is_done(bench: Bench, tmp_path: Path) -> None:
    hung = Hung(bench)
    settings = settings_for(tmp_path, bench.model)
    with life(settings, tmp_path / "log", workflow_def=TWO, **bench.request) as (process, run_id):
        assert hung.reached.wait(PATIENCE_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
    hung.release()
    with bench.portal.wrap_async_context_manager(FlowService(settings)) as service:
        ended = bench.ended(run_id, service)
    assert (ended.state, ended.output) == ("completed", {"first": "1st", "second": "2nd"})
    assert hung.asked == hung.repeated


def test_another_server_takes_over_from_one_that_closes_in_the_middle_of_a_call(bench: Bench, tmp_path: Path) -> None:
    hung = Hung(bench)
    settings = settings_for(tmp_path, bench.model)
    with life(settings, tmp_path / "log", workflow_def=TWO, **bench.request) as (process, run_id):
        assert hung.reached.wait(PATIENCE_S)
        with bench.portal.wrap_async_context_manager(FlowService(settings)) as other:
            assert bench.run(flow(stage(job("other", "work"))), other).state == "completed"
            assert hung.asked == ["1st", "2nd"]  # the run is left to who drives it
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0
            hung.release()
            ended = bench.ended(run_id, other)
            assert bench.portal.call(other.verify).ok
    assert (ended.state, ended.output) == ("completed", {"first": "1st", "second": "2nd"})
    assert hung.asked == hung.repeated
