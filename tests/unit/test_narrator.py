"""The log at DEBUG tells the story of a run, as the journal has it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.live.narrator import MAX_DETAIL, narrate
from contexten.extensions.flow.recovery.executor import FlowExecutor
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.store import Event

if TYPE_CHECKING:
    from tests.unit.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

LOGGER = "contexten.extensions.flow"


class Flaky:
    name = "flaky"
    agent_type = "t"
    tools = ("flaky",)
    calls = 0

    async def run(self, task: TaskCall, context: AttemptContext) -> int:
        self.calls += 1
        context.log("info", f"call {self.calls}")
        if self.calls == 1:
            raise AttemptError(f"no answer to {task.parameters.get('key')}", kind="network")
        return self.calls


def one(**task: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": [{"name": "a", **task}]}]}


def told(caplog: pytest.LogCaptureFixture, run_id: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if run_id in record.getMessage()]


async def test_a_retried_task_is_told_with_agent_error_delay_and_its_own_lines(
    settings: FlowSettings, end_of: EndOf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOK", "a-value-that-nobody-may-see")
    settings = settings.model_copy(update={"secrets": (SecretGrant(name="TOK"),)})
    task = one(
        type="t",
        required_tools=["flaky"],
        parameters={"key": "{{ secrets.TOK }}"},
        retry={"delay_s": 0.001, "jitter": 0},
    )
    with caplog.at_level(logging.DEBUG, logger=LOGGER):
        async with FlowService(settings, agents=[Flaky()]) as flows:
            run = await end_of(flows, (await flows.execute_flow(workflow_def=task)).run_id)
    story = told(caplog, run.run_id)
    run_line = f"run {run.run_id} of flow {run.flow_id}"
    task_line = f"run {run.run_id} task a"
    order = [
        f"run.scheduled: {run_line} by python/python, version: 1, priority: ",
        f"run.running: {run_line}",
        f"task.running: {task_line} attempt 1",
        f"attempt {run.run_id}:a:1 begins: agent flaky, tools ('flaky',)",
        f'task.log: {task_line} attempt 1, level: "info", message: "call 1"',
        f'task.retrying: {task_line} attempt 1, kind: "network", message: "no answer to [secret:TOK]", agent: "flaky"',
        f"task.running: {task_line} attempt 2",
        f"task.completed: {task_line} attempt 2",
        f"run.completed: {run_line}",
    ]
    places = [next(place for place, line in enumerate(story) if line.startswith(start)) for start in order]
    assert places == sorted(places)
    assert ", delay_s: 0.002" in story[places[5]]
    assert not any("a-value-that-nobody-may-see" in str(vars(record)) for record in caplog.records)


async def test_requests_to_a_run_are_told_with_who_asked_and_why(
    settings: FlowSettings, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger=LOGGER):
        async with FlowService(settings, agents=[gate]) as flows:
            run = await flows.execute_flow(workflow_def=one(type="t", required_tools=["gate"]))
            with anyio.fail_after(30):
                await gate.reached.wait()
                await flows.control(run.run_id, "cancel", reason="a mistake")
                await flows.wait(run.run_id)
    subject = f"run {run.run_id} of flow {run.flow_id}"
    story = told(caplog, run.run_id)
    assert f'run.cancel_requested: {subject} by python/python, reason: "a mistake"' in story
    assert any(line.startswith(f"run.cancelled: {subject}") for line in story)


async def test_what_a_recovery_strategy_logs_names_run_task_and_attempt(
    settings: FlowSettings, end_of: EndOf, caplog: pytest.LogCaptureFixture
) -> None:
    def strategy(_: Any) -> None:
        raise RuntimeError("no plan")

    executor = FlowExecutor(retry_delay=0, recovery_strategies={"network": strategy})
    async with FlowService(settings, agents=[Flaky()], executor=executor) as flows:
        run = await end_of(
            flows, (await flows.execute_flow(workflow_def=one(type="t", required_tools=["flaky"]))).run_id
        )
    (line,) = (text for text in told(caplog, run.run_id) if "no plan" in text)
    assert line.startswith(f"recovery after attempt {run.run_id}:a:1: ")


def entry(data: str | None = None, **fields: Any) -> Event:
    values = {"run_id": "run_1", "flow_id": "x", "task": None, "item": None, "attempt": None, "actor": None, **fields}
    return Event(seq=1, type="task.failed", at=0.0, data=data, **values)


def test_a_long_detail_is_cut_and_those_after_it_are_told(caplog: pytest.LogCaptureFixture) -> None:
    data = f'{{"message": "{"x" * 10_000}", "reason": "it is invalid"}}'
    with caplog.at_level(logging.DEBUG, logger=LOGGER):
        narrate([entry(data, task="a", item=2, attempt=1)])
    (line,) = caplog.messages
    assert line.startswith('task.failed: run run_1 task a[2] attempt 1, message: "xxx')
    assert line.endswith('..., reason: "it is invalid"')
    assert len(line) < MAX_DETAIL + 200


def test_entries_of_no_run_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger=LOGGER):
        narrate([entry(run_id=None)])
    assert caplog.messages == []


def test_above_debug_no_entry_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=LOGGER):
        narrate([entry("no JSON at all")])
    assert caplog.messages == []
