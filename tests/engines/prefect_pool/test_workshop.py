"""What a worker's own settings give it, without Prefect."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.agents import AttemptContext, TaskCall
from contexten.extensions.flow.agents.protocol import MODEL
from contexten.extensions.flow.prefect.payload import PoolAttempt, SecretReferences, Verdict
from contexten.extensions.flow.prefect.workshop import Workshop
from contexten.extensions.flow.settings import SecretGrant

from .conftest import about, call

pytestmark = pytest.mark.anyio

EXAMPLE = str(Path(__file__).parents[1] / "mcp" / "example_server.py")


async def _made(settings: FlowSettings, attempt: PoolAttempt, agents: Any = None) -> Verdict:
    workshop = Workshop(settings, agents=agents)
    try:
        return await workshop.make(attempt, lambda level, message: None, lambda event, data: None)
    finally:
        await workshop.aclose()


async def test_a_worker_uses_the_mcp_servers_of_its_own_settings(settings: FlowSettings, tmp_path: Path) -> None:
    servers = tmp_path / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {"near": {"command": sys.executable, "args": [EXAMPLE]}}}))
    task = call("mcp:near/add", parameters={"a": 2, "b": 3})
    attempt = PoolAttempt(task=task, context=about(), mark="m", lease_ttl_s=15)
    verdict = await _made(settings.model_copy(update={"mcp_servers": servers}), attempt)
    assert verdict.failure is None, verdict.failure
    assert "5" in json.dumps(verdict.output)
    without = await _made(settings, attempt)
    assert without.failure is not None
    assert (without.failure.kind, "mcp:near/add" in without.failure.message) == ("invalid", True)


def _with_secret(tool: str, parameter: str, **fields: Any) -> PoolAttempt:
    parameters = {parameter: SecretReferences("m").text("MYSECRET")}
    task = call(tool, parameters=parameters, secrets={parameter: frozenset({"MYSECRET"})}, **fields)
    return PoolAttempt(task=task, context=about(), mark="m", lease_ttl_s=15)


async def test_a_model_on_the_worker_is_told_a_secret_only_where_the_grant_names_it(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        name = "model"
        agent_type = "thinker"
        traits = MODEL
        tools = ("think",)

        def __init__(self) -> None:
            self.told: list[Any] = []

        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            self.told.append(task.parameters)
            return "done"

    monkeypatch.setenv("MYSECRET", "correct-horse")
    model = Model()
    attempt = _with_secret("think", "topic", preferred_agent_type="thinker")
    to_all = settings.model_copy(update={"secrets": (SecretGrant(name="MYSECRET"),)})
    verdict = await _made(to_all, attempt, [model])
    assert verdict.failure is not None
    assert "MYSECRET may not be handed to the model of model" in verdict.failure.message
    assert model.told == []
    named = settings.model_copy(update={"secrets": (SecretGrant(name="MYSECRET", tools=("model",)),)})
    assert (await _made(named, attempt, [model])).output == "done"
    assert model.told == [{"topic": "correct-horse"}]


async def test_a_tool_of_an_mcp_server_on_the_worker_needs_a_grant_for_itself_alone(
    settings: FlowSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSECRET", "correct-horse")
    servers = tmp_path / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {"near": {"command": sys.executable, "args": [EXAMPLE]}}}))
    grant = SecretGrant(name="MYSECRET", tools=("mcp:near/say",))
    settings = settings.model_copy(update={"mcp_servers": servers, "secrets": (grant,)})
    said = await _made(settings, _with_secret("mcp:near/say", "text"))
    assert said.output == "[secret:MYSECRET]", said.failure
    refused = await _made(settings, _with_secret("mcp:near/fail", "why"))
    assert refused.failure is not None
    assert "MYSECRET may not be handed to" in refused.failure.message


async def test_a_tool_that_is_off_on_the_worker_says_what_enables_it_there(settings: FlowSettings) -> None:
    task = call("shell", parameters={"argv": ["true"]})
    verdict = await _made(settings, PoolAttempt(task=task, context=about(), mark="m", lease_ttl_s=15))
    assert verdict.failure is not None
    assert verdict.failure.kind == "invalid"
    assert "CONTEXTEN_FLOW_ALLOW_COMMANDS" in verdict.failure.message
