"""What goes wrong with models, attempts and the ControlFlow process ends in an error of a kind, or is recovered."""

from __future__ import annotations

import os
import signal
import threading

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.controlflow import process
from contexten.extensions.flow.controlflow.engine import ControlFlowEngine
from contexten.extensions.flow.engines import EngineReference
from contexten.extensions.flow.errors import EngineUnavailable

from ..model_server import Call, Cut, Fault, Garbage, Hang, ModelRequest, ModelServer, Reply, Text
from .conftest import EventsOf, RunFlow, end_of, fail, flow_of, succeed

pytestmark = pytest.mark.anyio
ONCE = {"retry": {"max_attempts": 1}}


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Fault(401, "Incorrect API key provided: sk-the-right-one", "invalid_api_key"), "invalid", "TEST_MODEL_KEY"),
        (Fault(403, "forbidden"), "invalid", "key"),
        (Fault(404, "no such model"), "invalid", "no such model"),
        (Fault(400, "too long", "context_length_exceeded"), "invalid", "context"),
        (Fault(429, "slow down", headers={"retry-after": "7"}), "rate_limit", "slow down"),
        (Fault(500, "oh no"), "network", "500"),
        (Cut(), "network", "server"),
    ],
)
async def test_a_fault_of_the_model_s_server_has_a_kind(
    run_flow: RunFlow, model: ModelServer, reply: Reply, kind: str, words: str, events_of: EventsOf
) -> None:
    model.script = [reply]
    run = await run_flow({"name": "greet", **ONCE})
    assert run.error is not None
    assert run.error.kind == kind
    assert words in run.error.message
    assert "sk-the-right-one" not in run.error.message
    assert len(model.requests) == 1
    (called,) = await events_of(run.run_id, "task.model_called")
    assert called["error"]
    if kind == "rate_limit":
        (failed,) = await events_of(run.run_id, "task.failed")
        assert failed["details"]["retry_after_s"] == 7


async def test_an_answer_that_is_none_fails_the_attempt(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = [Garbage()]
    run = await run_flow({"name": "greet", **ONCE})
    assert run.error is not None
    assert run.error.kind == "network"


async def test_a_wrong_key_is_told_as_such(run_flow: RunFlow, model: ModelServer) -> None:
    model.key = "sk-another"
    run = await run_flow({"name": "greet"})
    assert run.error is not None
    assert run.error.kind == "invalid"
    assert len(model.requests) == 1


async def test_a_key_that_was_changed_counts_at_once(
    run_flow: RunFlow, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.key = "sk-another"
    monkeypatch.setenv("TEST_MODEL_KEY", "sk-another")
    assert (await run_flow({"name": "greet"})).state == "completed"


async def test_the_orchestrator_tries_again_after_a_fault(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = lambda request: Fault(500) if request.number == 1 else succeed(request)
    run = await run_flow({"name": "greet", "retry": {"max_attempts": 2, "delay_s": 0}})
    assert run.output == {"greet": "done"}
    assert len(model.requests) == 2


async def test_a_task_that_its_agent_gives_up_has_failed_for_that_reason(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = lambda request: fail(request, "there is no ink")
    run = await run_flow({"name": "write", **ONCE})
    assert run.error is not None
    assert (run.error.kind, "there is no ink" in run.error.message) == ("agent_failure", True)


async def test_a_model_that_only_talks_ends_at_its_limit_of_turns(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = [Text("Let me think about it.")]
    run = await run_flow({"name": "write", "parameters": {"agent": {"max_turns": 3}}, **ONCE})
    assert run.error is not None
    assert (run.error.kind, "max_turns" in run.error.message) == ("agent_failure", True)
    assert len(model.requests) == 3


async def test_a_model_that_only_calls_tools_ends_at_its_limit_of_tokens(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = [Call("count_items", {})]
    run = await run_flow(
        {"name": "count", "required_tools": ["count_items"], "parameters": {"agent": {"max_tokens": 40}}, **ONCE}
    )
    assert run.error is not None
    assert "max_tokens" in run.error.message
    assert len(model.requests) == 3


async def test_a_failed_attempt_leaves_nothing_in_the_conversation(run_flow: RunFlow, model: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        if request.number == 1:
            return Call("count_items", {})
        return Fault(500) if request.number == 2 else succeed(request)

    model.script = script
    run = await run_flow({"name": "count", "required_tools": ["count_items"], "retry": {"delay_s": 0}})
    assert run.state == "completed"
    assert model.requests[2].results == []


async def test_a_model_that_does_not_answer_runs_into_the_task_s_timeout(run_flow: RunFlow, model: ModelServer) -> None:
    model.script = [Hang()]
    run = await run_flow({"name": "greet", "timeout_s": 0.5, **ONCE})
    assert run.error is not None
    assert run.error.kind == "timeout"
    assert model.left.wait(10)


async def test_a_cancelled_run_lets_go_of_the_model(flows: FlowService, model: ModelServer) -> None:
    asked = threading.Event()

    def script(request: ModelRequest) -> Reply:
        asked.set()
        return Hang()

    model.script = script
    run = await flows.execute_flow(workflow_def=flow_of({"name": "greet"}), framework="controlflow")
    assert await anyio.to_thread.run_sync(asked.wait, 30)
    await flows.control(run.run_id, "cancel")
    assert (await end_of(flows, run.run_id)).state == "cancelled"
    assert await anyio.to_thread.run_sync(model.left.wait, 10)
    model.script = succeed
    again = await flows.execute_flow(workflow_def=flow_of({"name": "greet"}), framework="controlflow")
    assert (await end_of(flows, again.run_id)).state == "completed"


def child_of(flows: FlowService) -> int:
    """The process id of ControlFlow."""
    engine = flows.engines.engine(EngineReference("controlflow"))
    assert isinstance(engine, ControlFlowEngine)
    pid = engine._keeper.pid
    assert pid is not None
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_dies_or_hangs_is_replaced_and_the_run_goes_on(
    flows: FlowService,
    run_flow: RunFlow,
    model: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    events_of: EventsOf,
    number: signal.Signals,
) -> None:
    monkeypatch.setattr(process, "HUNG_AFTER_S", 5.0)
    monkeypatch.setattr(process, "PING_EVERY_S", 0.2)
    assert (await run_flow({"name": "before"})).state == "completed"
    pid = child_of(flows)

    def script(request: ModelRequest) -> Reply:
        if request.number == 3:
            os.kill(pid, number)
            return Hang()
        return succeed(request, f"after {len(request.messages)} messages")

    model.requests.clear()
    model.script = script
    tasks = ({"name": name, "retry": {"max_attempts": 3, "delay_s": 0}} for name in ("one", "two", "three", "four"))
    run = await run_flow(*tasks)
    assert run.state == "completed", run.error
    assert set(run.output or {}) == {"one", "two", "three", "four"}
    assert child_of(flows) != pid
    (failed,) = await events_of(run.run_id, "task.retrying")
    assert failed["kind"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "'two': 'after" in model.requests[3].system  # its memory starts anew from the outputs before it


async def test_without_a_model_agent_work_is_refused_with_what_to_do(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        with pytest.raises(EngineUnavailable, match="set CONTEXTEN_FLOW_MODEL"):
            await flows.execute_flow(workflow_def=flow_of({"name": "greet"}), framework="controlflow")


async def test_models_of_other_providers_are_refused_with_what_to_do(settings: FlowSettings) -> None:
    settings = settings.model_copy(update={"model": "anthropic/claude"})
    async with FlowService(settings) as flows:
        (view,) = [view for view in await flows.engines.views() if view.name == "controlflow"]
    assert not view.available
    assert "framework='strands'" in (view.note or "")
