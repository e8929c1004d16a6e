"""Failures: what stops, what goes on, what is tried again, and how long things may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError

if TYPE_CHECKING:
    from tests.fundamentals.conftest import EndOf, Gate

pytestmark = pytest.mark.anyio

BAD = {"required_tools": ["json_parser"], "parameters": {"text": "{"}}  # never parses, never tried again


class Flaky:
    """Fails as often as it is told, then works."""

    tools = ("flaky",)

    def __init__(self, failures: int, kind: str = "network") -> None:
        self.failures = failures
        self.kind = kind
        self.attempts: list[int] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> str:
        self.attempts.append(context.attempt)
        if len(self.attempts) <= self.failures:
            raise AttemptError("not this time", kind=self.kind)
        return "at last"


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


def flaky(**fields: Any) -> dict[str, Any]:
    return {"name": "shaky", "type": "test", "required_tools": ["flaky"], **fields}


async def states(flows: FlowService, run_id: str) -> dict[str, str]:
    return {task.name: task.state for task in (await flows.get_run(run_id, detail="tasks")).tasks or []}


async def test_a_failed_task_fails_the_run_and_skips_what_comes_after(settings: FlowSettings, end_of: EndOf) -> None:
    two = {
        "stages": [
            {"name": "a", "tasks": [{"name": "bad", **BAD}, {"name": "next"}]},
            {"name": "b", "tasks": [{"name": "last"}]},
        ]
    }
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=two)).run_id)
        assert await states(flows, run.run_id) == {"bad": "failed", "next": "skipped", "last": "skipped"}
    assert run.state == "failed"
    assert run.failed_tasks == ["bad"]
    assert run.error is not None
    assert (run.error.task, run.error.kind) == ("bad", "invalid")


async def test_continue_on_task_failure_tolerates_failures_of_its_stage(settings: FlowSettings, end_of: EndOf) -> None:
    definition = flow({"name": "bad", **BAD}, {"name": "next"})
    definition["stages"][0]["continue_on_task_failure"] = True
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert (run.state, run.failed_tasks) == ("completed", ["bad"])
    assert run.output == {"bad": None, "next": {}}


async def test_continue_on_failure_lets_later_stages_run(settings: FlowSettings, end_of: EndOf) -> None:
    two = {
        "continue_on_failure": True,
        "stages": [{"name": "a", "tasks": [{"name": "bad", **BAD}]}, {"name": "b", "tasks": [{"name": "last"}]}],
    }
    async with FlowService(settings) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=two)).run_id)
        assert await states(flows, run.run_id) == {"bad": "failed", "last": "completed"}
    assert (run.state, run.failed_tasks) == ("completed", ["bad"])


async def test_a_failed_attempt_is_tried_again_with_the_next_number(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Flaky(2)
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(flaky(retry={"delay_s": 0})))).run_id)
        events = await flows.events(run.run_id)
    assert run.output == {"shaky": "at last"}
    assert agent.attempts == [1, 2, 3]
    assert [event.type for event in events if event.task] == [
        "task.running",
        "task.retrying",
        "task.running",
        "task.retrying",
        "task.running",
        "task.completed",
    ]


async def test_max_attempts_counts_all_tries(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Flaky(9)
    definition = flow(flaky(retry={"max_attempts": 2, "delay_s": 0}))
    async with FlowService(settings, agents=[agent]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert agent.attempts == [1, 2]
    assert run.error is not None
    assert (run.error.kind, run.error.attempt, run.error.message) == ("network", 2, "not this time")


async def test_only_the_kinds_that_retry_names_are_tried_again(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Flaky(9, kind="custom_error")
    definition = flow(flaky(retry={"on": ["network"], "delay_s": 0}))
    async with FlowService(settings, agents=[agent]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert agent.attempts == [1]


async def test_an_invalid_request_is_never_tried_again(settings: FlowSettings, end_of: EndOf) -> None:
    agent = Flaky(9, kind="invalid")
    async with FlowService(settings, agents=[agent]) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(flaky()))).run_id)
    assert agent.attempts == [1]


async def test_an_attempt_longer_than_timeout_s_is_cut_off(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    task = {"name": "slow", "type": "t", "required_tools": ["gate"], "timeout_s": 0.02, "retry": {"max_attempts": 1}}
    async with FlowService(settings, agents=[gate]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task))).run_id)
    assert run.error is not None
    assert run.error.kind == "timeout"
    assert not gate.passed


async def test_a_run_longer_than_its_limit_is_ended(settings: FlowSettings, gate: Gate, end_of: EndOf) -> None:
    task = {"name": "slow", "type": "t", "required_tools": ["gate"]}
    async with FlowService(settings, agents=[gate]) as flows:
        by_context = await flows.execute_flow(workflow_def=flow(task, {"name": "next"}, context={"timeout": 0.02}))
        by_call = await flows.execute_flow(workflow_def=flow(task), timeout_s=0.02)
        ended = [await end_of(flows, run.run_id) for run in (by_context, by_call)]
        assert await states(flows, by_context.run_id) == {"slow": "cancelled", "next": "cancelled"}
    assert [(run.state, run.error and run.error.kind) for run in ended] == [("failed", "timeout")] * 2


async def test_what_an_agent_raises_is_its_tasks_failure_whatever_it_is(settings: FlowSettings, end_of: EndOf) -> None:
    class Stop(BaseException):
        pass

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    wrong: list[BaseException] = [
        Stop("now"),
        SystemExit(3),
        GeneratorExit(),
        Mute(),
        AttemptError(ValueError("x"), kind="network"),  # type: ignore[arg-type]  # what a careless agent does
        AttemptError("text with \ud800", kind="network"),
        AttemptError("odd", kind=object()),  # type: ignore[arg-type]  # likewise
        BaseExceptionGroup("several", [Stop("one")]),
    ]

    async def raises(task: TaskCall) -> None:
        raise wrong[int(task.parameters["which"])]

    task = {
        "name": "bad",
        "type": "t",
        "required_tools": ["raises"],
        "parameters": {"which": "{{ inputs.which }}"},
        "retry": {"max_attempts": 1},
    }
    patient = settings.model_copy(update={"circuit_failures": 0})  # or the agent would be left alone after five
    async with FlowService(patient, agents=[raises]) as flows:
        for which in range(len(wrong)):
            run = await flows.execute_flow(workflow_def=flow(task), inputs={"which": which})
            assert (await end_of(flows, run.run_id)).state == "failed", wrong[which]


async def test_an_agent_that_cancels_its_own_task_fails_its_attempt(settings: FlowSettings, end_of: EndOf) -> None:
    import asyncio

    async def quits(task: TaskCall) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await anyio.lowlevel.checkpoint()

    task = {"name": "bad", "type": "t", "required_tools": ["quits"], "retry": {"max_attempts": 1}}
    async with FlowService(settings, agents=[quits]) as flows:
        run = await end_of(flows, (await flows.execute_flow(workflow_def=flow(task))).run_id)
    assert run.error is not None
    assert run.error.kind == "agent_failure"


@pytest.mark.parametrize("output", [float("nan"), {1: 2}, object(), "x" * (11 << 20), 2**60, "\ud800"])
async def test_an_output_that_is_no_json_fails_its_task_as_invalid(
    output: object, settings: FlowSettings, end_of: EndOf
) -> None:
    async def odd(task: TaskCall) -> object:
        return output

    async with FlowService(settings, agents=[odd]) as flows:
        definition = flow({"name": "bad", "type": "t", "required_tools": ["odd"]})
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.error is not None
    assert (run.state, run.error.kind, run.error.attempt) == ("failed", "invalid", 1)


async def test_a_cyclic_output_is_invalid_with_secrets_to_mask_too(
    settings: FlowSettings, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "supersecret")

    async def snake(task: TaskCall) -> list[Any]:
        tail: list[Any] = []
        tail.append(tail)
        return tail

    with_secret = FlowSettings(**{**settings.model_dump(), "secrets": "API_KEY"})
    async with FlowService(with_secret, agents=[snake]) as flows:
        definition = flow({"name": "bad", "type": "t", "required_tools": ["snake"]})
        run = await end_of(flows, (await flows.execute_flow(workflow_def=definition)).run_id)
    assert run.error is not None
    assert run.error.kind == "invalid"
