from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import pytest

from contexten.extensions.flow.agents import Agent, AttemptContext, TaskCall, adapt_agents
from contexten.extensions.flow.agents.protocol import Traits


class Complete:
    name = "complete"
    agent_type = "research"
    tools = ("search", "read")
    capacity = 3

    def __init__(self) -> None:
        self.events: list[str] = []

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        return [task.name, context.attempt]

    async def reinitialize(self) -> None:
        self.events.append("reinitialize")

    def aclose(self) -> None:
        self.events.append("aclose")


class Bare:
    async def run(self, task: TaskCall) -> Any:
        return task["parameters"]


class CallableAgent:
    async def __call__(self, task: TaskCall, context: AttemptContext) -> str:
        return "called"


async def fetch(task: TaskCall, context: AttemptContext) -> str:
    return f"fetched {task.name}"


async def only_task(task: TaskCall) -> str:
    return task.name


async def optional_context(task: TaskCall, context: AttemptContext | None = None) -> bool:
    return context is not None


@pytest.fixture
def call(make_call: Callable[..., TaskCall]) -> TaskCall:
    return make_call(a=1)


@pytest.mark.anyio
async def test_an_object_of_the_protocol_keeps_what_it_says(call: TaskCall, context: AttemptContext) -> None:
    target = Complete()
    (agent,) = adapt_agents([target])
    assert isinstance(agent, Agent)
    assert (agent.name, agent.agent_type, tuple(agent.tools), agent.capacity) == (
        "complete", "research", ("search", "read"), 3,
    )  # fmt: skip
    assert await agent.run(call, context) == ["task", 1]
    await agent.reinitialize()
    await agent.aclose()
    assert target.events == ["reinitialize", "aclose"]


@pytest.mark.anyio
async def test_what_an_object_does_not_say_gets_a_default(call: TaskCall, context: AttemptContext) -> None:
    (agent,) = adapt_agents([Bare()])
    assert (agent.name, agent.agent_type, tuple(agent.tools), agent.capacity) == ("Bare", "python", (), 1)
    assert await agent.run(call, context) == {"a": 1}
    await agent.reinitialize()
    await agent.aclose()


@pytest.mark.anyio
async def test_a_mapping_names_the_agents(call: TaskCall, context: AttemptContext) -> None:
    agents = adapt_agents({"first": fetch, "second": Complete()})
    assert [(agent.name, tuple(agent.tools)) for agent in agents] == [
        ("first", ("first",)),
        ("second", ("search", "read")),
    ]
    assert await agents[0].run(call, context) == "fetched task"


@pytest.mark.anyio
async def test_an_async_function_offers_a_tool_of_its_name(call: TaskCall, context: AttemptContext) -> None:
    agents = adapt_agents([fetch, only_task, optional_context])
    assert [(agent.name, tuple(agent.tools)) for agent in agents] == [
        ("fetch", ("fetch",)),
        ("only_task", ("only_task",)),
        ("optional_context", ("optional_context",)),
    ]
    assert [await agent.run(call, context) for agent in agents] == ["fetched task", "task", True]


@pytest.mark.anyio
async def test_a_function_may_say_which_tools_it_offers(call: TaskCall, context: AttemptContext) -> None:
    async def work(task: TaskCall) -> None:
        return None

    work.tools = ["a", "b"]  # type: ignore[attr-defined] # how a user says it
    (agent,) = adapt_agents([work])
    assert tuple(agent.tools) == ("a", "b")


@pytest.mark.anyio
async def test_other_async_callables_serve_too(call: TaskCall, context: AttemptContext) -> None:
    mock = AsyncMock(return_value="mocked", spec=[])
    agents = adapt_agents({"object": CallableAgent(), "partial": functools.partial(fetch), "mock": mock})
    assert [await agent.run(call, context) for agent in agents] == ["called", "fetched task", "mocked"]
    mock.assert_awaited_once_with(call, context)


@pytest.mark.anyio
async def test_an_agent_that_exits_does_not_take_the_process_with_it(call: TaskCall, context: AttemptContext) -> None:
    async def leave(task: TaskCall) -> None:
        raise SystemExit(1)

    (agent,) = adapt_agents([leave])
    with pytest.raises(RuntimeError, match="leave"):
        await agent.run(call, context)


def test_none_and_nothing_are_no_agents() -> None:
    assert adapt_agents(None) == []
    assert adapt_agents([]) == []
    assert adapt_agents({}) == []


def test_a_single_agent_may_be_given_alone() -> None:
    assert [agent.name for agent in adapt_agents(fetch)] == ["fetch"]
    assert [agent.name for agent in adapt_agents(Complete())] == ["complete"]


def test_an_adapted_agent_may_be_given_again() -> None:
    adapted = adapt_agents([fetch])
    assert adapt_agents(adapted) == adapted
    assert [agent.name for agent in adapt_agents({"other": adapted[0]})] == ["other"]


def test_the_traits_of_an_object_stay_those_of_the_agent_whatever_it_is_called() -> None:
    traits = Traits(takes_agent_work=True, secrets="own")
    (agent,) = adapt_agents([with_attribute("traits", traits)])
    assert agent.traits is traits
    assert [other.traits for other in adapt_agents({"other": agent})] == [traits]
    assert [plain.traits for plain in adapt_agents([fetch])] == [Traits()]


def sync(task: TaskCall) -> None:
    pass


async def no_parameters() -> None:
    pass


async def three(task: TaskCall, context: AttemptContext, more: int) -> None:
    pass


class SyncRun:
    def run(self, task: TaskCall, context: AttemptContext) -> None:
        pass


def with_attribute(name: str, value: object) -> Complete:
    agent = Complete()
    setattr(agent, name, value)
    return agent


@pytest.mark.parametrize(
    ("agents", "error", "words"),
    [
        ([sync], TypeError, "async def"),
        ({"x": sync}, TypeError, r"agents\['x'\] is not async"),
        ([SyncRun()], TypeError, r"agents\[0\].run is not async"),
        ([Complete], TypeError, "instance"),
        ([fetch, object()], TypeError, r"agents\[1\]"),
        (["name"], TypeError, "no agent"),
        ("name", TypeError, "text"),
        (5, TypeError, "no agent"),
        ({1: fetch}, TypeError, "names of a mapping"),
        ([no_parameters], TypeError, "must take"),
        ([three], TypeError, "must take"),
        ([fetch, fetch], ValueError, "two of them are named 'fetch'"),
        ([with_attribute("capacity", 0)], ValueError, "capacity"),
        ([with_attribute("capacity", True)], ValueError, "capacity"),
        ([with_attribute("tools", "search")], TypeError, "tools"),
        ([with_attribute("tools", [1])], TypeError, "tools"),
        ([with_attribute("agent_type", 5)], TypeError, "agent_type"),
        ([with_attribute("traits", {"secrets": "own"})], TypeError, r"traits must be Traits"),
    ],
)
def test_what_is_no_agent_is_refused_by_its_place(agents: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        adapt_agents(agents)
