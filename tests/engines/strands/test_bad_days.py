"""What goes wrong with a model ends in a failure of its kind that says what to do; what may help is tried again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings

from ..model_server import Broken, Call, Cut, Fault, Garbage, Hang, ModelRequest, ModelServer, Reply, Text
from .conftest import Play

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-key-0001"


def flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}]}


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (Fault(401, f"Incorrect API key provided: {KEY}.", "invalid_api_key"), "invalid", "set OPENAI_API_KEY"),
        (Fault(403), "invalid", "refuses the key"),
        (Fault(404, "The model does not exist", "model_not_found"), "invalid", "knows no such model"),
        (Fault(400, "bad request"), "invalid", "status 400"),
        (Fault(429), "rate_limit", "no more calls"),
        (Fault(429, "You exceeded your quota", "insufficient_quota"), "invalid", "quota is spent"),
        (Fault(500), "network", "status 500"),
        (Fault(503), "network", "status 503"),
        (Fault(504), "timeout", "in time"),
        (Fault(400, "maximum context length is 8192 tokens", "context_length_exceeded"), "invalid", "longer"),
        (Cut(), "network", "broke off"),
        (Broken(), "network", "server failed in the middle"),
        (Garbage(), "network", "ended before"),
        (Text("It is", stop="length"), "agent_failure", "cut at the most"),
        (Text("", stop="content_filter"), "invalid", "held its answer back"),
        (Text(""), "agent_failure", "answered nothing"),
    ],
)
async def test_each_fault_is_of_its_kind(
    play: Play, monkeypatch: pytest.MonkeyPatch, reply: Reply, kind: str, says: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ended = await play([reply])
    assert ended.error[0] == kind
    assert says in ended.error[1]
    assert KEY not in str(ended.run) + str(ended.events)
    assert len(ended.told("task.usage")) == 1


async def test_a_rate_limit_is_waited_out_as_long_as_the_server_asks(play: Play, model_server: ModelServer) -> None:
    replies = [Fault(429, headers={"retry-after": "1"}), Text("now")]
    ended = await play(replies, {"retry": {"max_attempts": 2, "delay_s": 0, "jitter": 0}})
    assert ended.output == "now"
    (retried,) = ended.told("task.retrying")
    assert "the server asked to wait 1 s" in str(retried)
    assert len(model_server.requests) == 2  # none of them Strands' or the client's own


async def test_a_server_that_recovers_is_asked_again(play: Play, model_server: ModelServer) -> None:
    replies = [Fault(500), Cut(), Text("third time lucky")]
    ended = await play(replies, {"retry": {"max_attempts": 3, "delay_s": 0}})
    assert ended.output == "third time lucky"
    assert len(ended.told("task.usage")) == 3


async def test_a_refused_connection_is_the_networks_fault(play: Play) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        ended = await play([Text("never")], model_base_url=url)
    assert ended.error[0] == "network"
    assert f"The model openai/scripted at {url}: its server cannot be reached" in ended.error[1]


@pytest.mark.parametrize("words", ["", "I begin, and then"])
async def test_a_model_that_hangs_times_out(play: Play, model_server: ModelServer, words: str) -> None:
    ended = await play([Hang(words)], model_timeout_s=0.3)
    kind, message = ended.error
    assert kind == "timeout"
    assert "0.3 s" in message
    assert await anyio.to_thread.run_sync(model_server.left.wait, 10)
    assert "timeout" in str(ended.told("task.model_called") or message)


async def test_a_tasks_timeout_ends_the_call(play: Play, model_server: ModelServer) -> None:
    ended = await play([Hang()], {"timeout_s": 0.3})
    assert ended.error[0] == "timeout"
    assert await anyio.to_thread.run_sync(model_server.left.wait, 10)
    assert ended.told("task.usage")[0]["model_calls"] == 1


async def test_a_missing_key_is_told_by_its_variable(play: Play) -> None:
    with pytest.raises(Exception, match="set MY_KEY in the server's environment"):
        await play([Text("never")], model_base_url=None, model_api_key_variable="MY_KEY")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("opnai/gpt", "did you mean openai/"),
        ("ollama/llama3", "pip install 'strands-agents\\[ollama\\]'"),
        ("nobody/x", "names no provider"),
    ],
)
async def test_a_model_that_cannot_be_is_refused_before_the_run(play: Play, model: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        await play([Text("never")], model=model)


async def test_a_flow_spends_on_no_other_provider(play: Play) -> None:
    asked = {"parameters": {"agent": {"model": "{{ inputs.model }}"}}}
    ended = await play([Text("never")], definition=flow_of(asked), inputs={"model": "bedrock/claude"})
    kind, message = ended.error
    assert (kind, "not of the provider that is configured" in message) == ("invalid", True)


async def test_options_that_come_out_wrong_are_told_by_their_place(play: Play) -> None:
    task = {"parameters": {"agent": {"max_turns": "{{ inputs.turns }}"}}}
    ended = await play([Text("never")], definition=flow_of(task), inputs={"turns": 0})
    kind, message = ended.error
    assert kind == "invalid"
    assert "parameters/agent/max_turns" in message


def flow_of(task: dict[str, Any]) -> dict[str, Any]:
    whole = {"name": "work", "type": "agent", "description": "Do it.", **task}
    return {**flow(whole), "inputs": True}


LIFE = """
import asyncio, sys
from contexten.extensions.flow import FlowService, FlowSettings

async def main():
    async with FlowService(FlowSettings(model="openai/scripted", model_base_url=sys.argv[1], lease_ttl_s=1)) as flows:
        tasks = [
            {"name": "first", "type": "agent", "description": "the first"},
            {"name": "second", "type": "agent", "description": "the second", "depends_on": ["first"]},
        ]
        run = await flows.execute_flow(workflow_def={"stages": [{"name": "only", "tasks": tasks}]})
        print(run.run_id, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_crash_in_a_models_work_loses_nothing_and_repeats_nothing(
    settings: FlowSettings, model_server: ModelServer, tmp_path: Path
) -> None:
    model_server.script = lambda request: Hang() if "the second" in request.user else Text("1st")
    life = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIFE, model_server.url, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert life.stdout is not None
    with anyio.fail_after(60):
        run_id = (await life.stdout.readline()).decode().strip()
        assert await anyio.to_thread.run_sync(model_server.wait_for, 2)
        life.send_signal(signal.SIGKILL)
        await life.wait()

    def script(request: ModelRequest) -> Reply:
        assert "the second" in request.user
        assert "1st" in request.user  # the output before it
        return Text("2nd")

    model_server.script = script
    async with FlowService(settings.model_copy(update={"lease_ttl_s": 1.0})) as flows:
        await flows.wait(run_id, timeout_s=40)
        run = await flows.get_run(run_id, detail="output")
    assert run.state == "completed", run
    assert run.output == {"first": "1st", "second": "2nd"}
    assert len(model_server.requests) == 3


async def test_a_malformed_stream_of_arguments_is_no_call_of_anything(play: Play, model_server: ModelServer) -> None:
    endless = Call("data_processor", json.dumps({"data": "x" * 1000})[:-2])
    ended = await play([endless], {"required_tools": ["data_processor"], "parameters": {"agent": {"max_turns": 4}}})
    assert ended.error[0] == "agent_failure"
    assert len(model_server.requests) == 4
    assert ended.told("task.tool_called") == []
