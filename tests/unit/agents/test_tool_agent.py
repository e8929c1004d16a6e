from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
import pytest

from contexten.extensions.flow.agents import Agent, AttemptContext, BuiltinToolAgent, TaskCall
from contexten.extensions.flow.agents.tools import (
    Absent,
    Tool,
    ToolEnvironment,
    ToolParameters,
    builtin_tools,
)
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Any]]


class FakeClock(SystemClock):
    def __init__(self) -> None:
        super().__init__()
        self.at = datetime(2030, 1, 1, tzinfo=UTC)
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=max(0.0, seconds))


class EchoParameters(ToolParameters):
    word: str
    times: int = pydantic.Field(1, ge=1, le=3)


class Echo(Tool[EchoParameters]):
    name = "echo"
    description = "Gives back what it was given."
    parameters = EchoParameters

    def __init__(self) -> None:
        self.calls = 0
        self.closed = 0

    async def run(
        self, parameters: EchoParameters, previous: Any | Absent, context: AttemptContext, environment: ToolEnvironment
    ) -> Any:
        self.calls += 1
        return [None if isinstance(previous, Absent) else previous, parameters.word * parameters.times]

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def agent(clock: FakeClock, echo: Echo) -> BuiltinToolAgent:
    settings = FlowSettings(tool_capacity=7)
    return BuiltinToolAgent(settings, clock, tools={**builtin_tools(settings), "echo": echo})


async def refusal(call: Awaitable[Any]) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await call
    assert caught.value.kind == "invalid"
    return caught.value


def test_it_is_an_agent(agent: BuiltinToolAgent) -> None:
    assert isinstance(agent, Agent)
    assert (agent.name, agent.agent_type, agent.capacity) == ("builtin", "tool", 7)


async def test_without_tools_the_parameters_are_the_output(
    agent: BuiltinToolAgent, make_call: Callable[..., TaskCall], context: AttemptContext
) -> None:
    call = make_call(a=1)
    assert await agent.run(call, context) is call.parameters


async def test_each_tool_gets_the_output_before_and_only_the_parameters_that_it_knows(
    agent: BuiltinToolAgent, make_call: Callable[..., TaskCall], context: AttemptContext
) -> None:
    call = make_call("echo", "echo", "data_processor", word="ab", times=2, query="[0]")
    assert await agent.run(call, context) == [None, "abab"]


async def test_all_that_is_wrong_with_the_parameters_is_told_before_any_tool_runs(
    agent: BuiltinToolAgent, echo: Echo, make_call: Callable[..., TaskCall], context: AttemptContext
) -> None:
    call = make_call("echo", "json_parser", word=5, times=9, pointer="x", wrod="a/b")
    error = await refusal(agent.run(call, context))
    assert error.details is not None
    assert [issue["path"] for issue in error.details["issues"]] == [
        "/parameters/wrod",
        "/parameters/word",
        "/parameters/times",
        "/parameters/pointer",
    ]
    assert "parameters/times" in error.message
    assert echo.calls == 0


async def test_a_missing_parameter_names_the_tool_that_needs_it(
    agent: BuiltinToolAgent, make_call: Callable[..., TaskCall], context: AttemptContext
) -> None:
    assert "echo needs it" in (await refusal(agent.run(make_call("echo"), context))).message


async def test_a_tool_that_is_off_says_how_to_enable_it(
    agent: BuiltinToolAgent, make_call: Callable[..., TaskCall], context: AttemptContext
) -> None:
    message = (await refusal(agent.run(make_call("shell", argv=["ls"]), context))).message
    assert "CONTEXTEN_FLOW_ALLOW_COMMANDS" in message
    assert "http_client" in (await refusal(agent.run(make_call("nope"), context))).message


async def test_an_exception_of_a_tool_passes_through(
    agent: BuiltinToolAgent, echo: Echo, make_call: Callable[..., TaskCall], context: AttemptContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def fail(*args: object) -> None:
        raise LookupError("gone")

    monkeypatch.setattr(echo, "run", fail)
    with pytest.raises(LookupError, match="gone"):
        await agent.run(make_call("echo", word="a"), context)


async def test_closing_and_reinitializing_close_every_tool(agent: BuiltinToolAgent, echo: Echo) -> None:
    await agent.reinitialize()
    await agent.aclose()
    assert echo.closed == 2


async def test_wait_sleeps_and_passes_on_what_came_before(
    agent: BuiltinToolAgent, clock: FakeClock, make_call: Callable[..., TaskCall], context: AttemptContext
) -> None:
    assert await agent.run(make_call("wait", seconds=2.5), context) == {"waited_until": "2030-01-01T00:00:02.500+00:00"}
    assert await agent.run(make_call("json_parser", "wait", text="null", seconds=1), context) is None
    until = make_call("wait", until="2030-01-01T01:00:03.5+01:00")
    assert await agent.run(until, context) == {"waited_until": "2030-01-01T00:00:03.500+00:00"}
    assert clock.slept == [2.5, 1.0, 0.0]


@pytest.mark.parametrize(
    "parameters",
    [{}, {"seconds": -1}, {"seconds": 1, "until": "2030-01-01T00:00:00Z"}, {"until": "2030-01-01T00:00:00"},
     {"until": "soon"}, {"seconds": float("inf")}],
)  # fmt: skip
async def test_wait_takes_exactly_one_sensible_time(
    agent: BuiltinToolAgent, make_call: Callable[..., TaskCall], context: AttemptContext, parameters: dict[str, Any]
) -> None:
    await refusal(agent.run(make_call("wait", **parameters), context))


def test_every_tool_describes_itself_and_each_of_its_parameters() -> None:
    settings = FlowSettings(allow_commands=("cat",), allow_functions=("a:b",))
    tools = builtin_tools(settings)
    assert set(tools) == {
        "http_client", "json_parser", "data_processor", "file_reader", "file_writer", "shell", "python", "wait",
    }  # fmt: skip
    for name, tool in tools.items():
        spec = tool.spec
        assert spec.name == name
        assert len(spec.description) > 60
        assert spec.parameters is not None
        schema = spec.parameters.model_json_schema()
        assert schema["additionalProperties"] is False
        assert spec.piped <= set(schema["properties"])
        for parameter, described in schema["properties"].items():
            assert described.get("description"), f"{name}.{parameter}"


def test_the_json_names_of_http_client_are_those_of_the_contract() -> None:
    schema = builtin_tools(FlowSettings())["http_client"].parameters.model_json_schema()
    assert set(schema["properties"]) == {
        "url", "method", "headers", "params", "json", "body", "timeout_s", "format", "accept_status",
    }  # fmt: skip
