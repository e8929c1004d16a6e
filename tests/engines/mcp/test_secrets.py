"""Secrets reach an MCP server only where the settings grant them, and are told to nobody else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from contexten.extensions.flow.errors import InvalidArguments

from .conftest import bad, example

if TYPE_CHECKING:
    from .conftest import HttpServer, Open

pytestmark = pytest.mark.anyio
VALUE = "s3cr3t-value"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", VALUE)


async def test_headers_hold_secrets(
    http_server: HttpServer, open_flows: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    entry = {"url": http_server.url, "headers": {"Authorization": "Bearer ${secret:KEY}"}}
    async with open_flows({"ex": entry}, secrets=("KEY@tool:mcp:ex",)) as flows:
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}
    assert all(headers["authorization"] == f"Bearer {VALUE}" for _, headers in http_server.requests)
    assert VALUE not in caplog.text


async def test_a_secret_granted_to_the_host_serves_its_headers(http_server: HttpServer, open_flows: Open) -> None:
    entry = {"url": http_server.url, "headers": {"X-Key": "${secret:KEY}"}}
    async with open_flows({"ex": entry}, secrets=("KEY@127.0.0.1",)) as flows:
        assert await flows.output("mcp:ex/add", a=1) == {"total": 2}
    assert http_server.requests[0][1]["x-key"] == VALUE


async def test_the_environment_of_a_program_holds_secrets_and_nothing_else_of_ours(
    open_flows: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "not for servers")
    entry = example(env={"KEY": "${secret:KEY}", "PLAIN": "yes"})
    async with open_flows({"ex": entry}, secrets=("KEY@tool:mcp:ex",)) as flows:
        assert await flows.output("mcp:ex/mirrored", variable="KEY") == VALUE[::-1]
        assert await flows.output("mcp:ex/mirrored", variable="PLAIN") == "sey"
        assert await flows.output("mcp:ex/mirrored", variable="OTHER") == ""


@pytest.mark.parametrize("grants", [(), ("KEY@tool:mcp:other",)])
async def test_a_secret_that_is_not_granted_to_the_server_is_refused_at_the_start(
    open_flows: Open, grants: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidArguments, match="server ex is to get the secret KEY") as refused:
        async with open_flows({"ex": example(env={"A": "${secret:KEY}"})}, secrets=grants):
            raise AssertionError
    assert refused.value.next == "Add KEY@tool:mcp:ex to the setting secrets."


async def test_parameters_hand_secrets_only_to_tools_that_may_have_them(open_flows: Open) -> None:
    grants = ("KEY@tool:mcp:ex/say",)
    async with open_flows({"ex": example()}, secrets=grants) as flows:
        assert await flows.output("mcp:ex/say", text="it is {{ secrets.KEY }}") == "it is [secret:KEY]"
        kind, message = await flows.failure("mcp:ex/fail", why="{{ secrets.KEY }}")
        assert (kind, "may not be handed to the tool mcp:ex/fail" in message) == ("invalid", True)


async def test_what_a_dying_server_says_is_masked(open_flows: Open) -> None:
    entry = {"command": sys.executable, "args": ["-c", "import os,sys; sys.exit('bad key ' + os.environ['KEY'])"]}
    secrets = ("KEY",)
    async with open_flows(
        {"ex": {**entry, "env": {"KEY": "${secret:KEY}"}}, "b": bad("fine")}, secrets=secrets
    ) as flows:
        await flows.registry.ready(["mcp:ex/x"])
        assert flows.state("ex") == "failed: it ended with exit code 1: bad key [secret:KEY]"
