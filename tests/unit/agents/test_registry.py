from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contexten.extensions.flow.agents import AgentRegistry, BuiltinToolAgent
from contexten.extensions.flow.agents.registry import Worker as EngineWorker
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.settings import FlowSettings


@dataclass
class Task:
    type = "free text"

    required_tools: list[str]
    preferred_agent_type: str | None = None
    complexity: float = 1


class Worker:
    def __init__(self, name: str, *tools: str, agent_type: str = "worker", capacity: int = 1) -> None:
        self.name, self.agent_type, self.capacity = name, agent_type, capacity
        self.tools: Sequence[str] = tools
        self.closed = False

    async def run(self, task: Any, context: Any) -> None:
        return None

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def builtin() -> BuiltinToolAgent:
    return BuiltinToolAgent(FlowSettings(tool_capacity=2), SystemClock())


def selected(registry: AgentRegistry, task: Task) -> str | None:
    agent = registry.select(task)
    return None if agent is None else agent.name


def acquired(registry: AgentRegistry, task: Task, exclude: frozenset[str] = frozenset()) -> str | None:
    agent = registry.try_acquire(task, exclude)
    return None if agent is None else agent.name


def test_an_agent_must_offer_all_tools_that_are_required(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("a", "x"), Worker("b", "x", "y")], builtin)
    assert selected(registry, Task(["x", "y"])) == "b"
    assert selected(registry, Task(["http_client", "json_parser"])) == "builtin"
    assert selected(registry, Task(["x", "http_client"])) is None
    assert selected(registry, Task([])) == "a"


def test_agents_from_python_go_before_the_built_in_one(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("mine", "http_client")], builtin)
    assert selected(registry, Task(["http_client"])) == "mine"
    assert selected(registry, Task(["json_parser"])) == "builtin"


def test_the_preferred_type_is_taken_where_it_exists_and_is_able(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("a", "http_client"), Worker("b", "http_client", agent_type="fast")], builtin)
    assert selected(registry, Task(["http_client"], "fast")) == "b"
    assert selected(registry, Task(["http_client"], "tool")) == "builtin"
    assert selected(registry, Task(["http_client"], "unheard of")) == "a"
    assert selected(registry, Task(["json_parser"], "fast")) == "builtin"


def test_a_task_waits_for_a_busy_agent_rather_than_fall_to_a_lesser_one(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("mine", "http_client")], builtin)
    task = Task(["http_client"])
    agent = registry.try_acquire(task)
    assert agent is not None
    assert registry.try_acquire(task) is None
    registry.release(agent, task)
    assert acquired(registry, task) == "mine"


def test_capacity_counts_tasks_and_the_least_loaded_takes_the_next(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("a", "x", capacity=2), Worker("b", "x", capacity=2)])
    assert acquired(registry, Task(["x"], complexity=5)) == "a"
    assert acquired(registry, Task(["x"])) == "b"
    assert acquired(registry, Task(["x"])) == "b"
    assert acquired(registry, Task(["x"])) == "a"
    assert acquired(registry, Task(["x"])) is None
    assert registry.running == 4


def test_avoided_agents_are_passed_over_while_another_is_able(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("a", "http_client"), Worker("b", "http_client")], builtin)
    task = Task(["http_client"])
    assert acquired(registry, task, frozenset({"a"})) == "b"
    assert acquired(registry, task, frozenset({"a", "b"})) == "builtin"
    assert acquired(registry, task, frozenset({"a", "b", "builtin"})) == "a"


def test_releasing_more_than_was_acquired_is_an_error() -> None:
    registry = AgentRegistry([Worker("a", "x")])
    agent = registry.try_acquire(Task(["x"]))
    assert agent is not None
    registry.release(agent)
    with pytest.raises(RuntimeError, match="'a'"):
        registry.release(agent)


def test_more_agents_merge_by_name(builtin: BuiltinToolAgent) -> None:
    first = Worker("a", "x", capacity=2)
    registry = AgentRegistry([first], builtin)
    before = registry.try_acquire(Task(["x"]))
    assert before is not None
    registry.add([first, Worker("b", "y")])
    assert [agent.name for agent in registry.agents] == ["a", "b", "builtin"]
    assert registry.agents[0] is before
    registry.add({"a": Worker("other", "z")})
    assert selected(registry, Task(["x"])) is None
    assert selected(registry, Task(["z"])) == "a"
    assert registry.running == 1
    registry.release(before)
    assert registry.running == 0


def test_a_bad_agent_adds_none_of_its_list(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry(None, builtin)
    with pytest.raises(TypeError):
        registry.add([Worker("a", "x"), object()])
    with pytest.raises(ValueError, match="builtin"):
        registry.add([Worker("a", "x"), Worker("builtin", "x")])
    assert [agent.name for agent in registry.agents] == ["builtin"]


@pytest.mark.parametrize("name", ["strands-model", "controlflow-model", "prefect:gpu"])
def test_the_names_of_engines_agents_are_not_for_users(name: str) -> None:
    registry = AgentRegistry()
    with pytest.raises(ValueError, match=f"the name '{name}' is that of an engine's agent; choose another"):
        registry.add([Worker(name, "x")])
    registry.hire(Worker(name, "x"))
    assert selected(registry, Task(["x"])) is None


def test_nobody_takes_what_an_engine_would_that_cannot_be_had(builtin: BuiltinToolAgent) -> None:
    given = Worker("given", "x", agent_type="research")
    registry, task = AgentRegistry([given], builtin), Task(["http_client"])
    assert registry.select(task, EngineWorker(None)) is None
    assert registry.try_acquire(task, (), EngineWorker(None)) is None
    assert registry.able(task, EngineWorker(None)) == ()
    assert registry.select(Task(["x"]), EngineWorker(None)) is registry.find("given")
    assert registry.select(Task(["x"]), EngineWorker(None, is_for_models=True)) is None
    assert registry.select(Task(["x"]), EngineWorker(None, is_alone=True)) is None


def test_the_checker_is_told_of_agents_and_tools(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("a", "x")], builtin)
    assert [(spec.name, spec.agent_type, spec.builtin) for spec in registry.agent_specs()] == [
        ("a", "worker", False),
        ("builtin", "tool", True),
    ]
    tools = registry.tool_specs()
    assert set(tools) == set(builtin.tools)
    assert tools["json_parser"].piped == {"text"}
    assert "CONTEXTEN_FLOW_ALLOW_COMMANDS" in registry.disabled_tools()["shell"]


def test_the_snapshot_is_json_and_shows_load_and_schemas(builtin: BuiltinToolAgent) -> None:
    registry = AgentRegistry([Worker("a", "x", "http_client", capacity=4)], builtin)
    registry.try_acquire(Task(["x"], complexity=2))
    shown = json.loads(json.dumps(registry.snapshot()))
    assert shown["agents"][0] == {
        "name": "a", "agent_type": "worker", "tools": ["x", "http_client"], "capacity": 4, "running": 1, "load": 0.5,
    }  # fmt: skip
    tools = {tool["name"]: tool for tool in shown["tools"]}
    assert tools["http_client"]["agents"] == ["a", "builtin"]
    assert "url" in tools["http_client"]["parameters"]["properties"]
    assert tools["x"] == {"name": "x", "description": "", "parameters": None, "agents": ["a"]}
    assert set(shown["disabled_tools"]) == {"shell", "python"}


@pytest.mark.anyio
async def test_closing_closes_all_even_where_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Worker):
        async def aclose(self) -> None:
            raise OSError("no")

    good = Worker("good")
    registry = AgentRegistry([Stubborn("bad"), good])
    with caplog.at_level(logging.WARNING):
        await registry.aclose()
    assert good.closed
    assert "failed to close" in caplog.text


@pytest.mark.anyio
async def test_an_idle_agent_is_closed_when_another_takes_its_name() -> None:
    first, second = Worker("a", "x"), Worker("a", "x")
    registry = AgentRegistry([first])
    registry.add([second])
    await asyncio.sleep(0)
    assert first.closed
    await registry.aclose()
    assert second.closed


@pytest.mark.anyio
async def test_a_replaced_agent_is_closed_when_its_last_attempt_has_ended() -> None:
    first, second = Worker("a", "x", capacity=3), Worker("a", "x", capacity=3)
    registry = AgentRegistry([first])
    held = [registry.try_acquire(Task(["x"])) for _ in range(2)]
    registry.add([second])
    own = registry.try_acquire(Task(["x"]))
    assert own is not None
    registry.release(own)
    for agent in held:
        await asyncio.sleep(0)
        assert not first.closed
        assert agent is not None
        registry.release(agent)
    await asyncio.sleep(0)
    assert first.closed
    assert not second.closed
    assert registry.running == 0


@pytest.mark.anyio
async def test_a_replaced_agent_that_still_works_is_closed_with_the_registry() -> None:
    first = Worker("a", "x")
    registry = AgentRegistry([first])
    agent = registry.try_acquire(Task(["x"]))
    registry.add([Worker("a", "x")])
    await registry.aclose()
    assert first.closed
    assert agent is not None
    registry.release(agent)


@pytest.mark.anyio
async def test_a_replaced_agent_that_is_there_under_another_name_stays_open() -> None:
    shared, other = Worker("a", "x"), Worker("a", "x")
    registry = AgentRegistry({"a": shared, "b": shared})
    registry.add([other])
    await asyncio.sleep(0)
    assert not shared.closed
    registry.add({"a": shared, "b": Worker("b", "x")})
    await asyncio.sleep(0)
    assert not shared.closed
    assert other.closed


def test_an_agent_replaced_before_anything_runs_is_closed_with_the_registry() -> None:
    first = Worker("a", "x")
    registry = AgentRegistry([first])
    registry.add([Worker("a", "x")])
    asyncio.run(registry.aclose())
    assert first.closed


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["x", "y", "xy"]), st.integers(1, 9), st.booleans()), max_size=60))
def test_places_are_never_oversold_and_all_come_back(steps: list[tuple[str, int, bool]]) -> None:
    workers = [Worker("a", "x", capacity=2), Worker("b", "x", "y", capacity=3), Worker("c", "y")]
    registry = AgentRegistry(workers)
    held: list[tuple[Any, Task]] = []
    for tools, complexity, release in steps:
        if release and held:
            agent, task = held.pop(0)
            registry.release(agent, task)
            continue
        task = Task(list(tools), complexity=complexity)
        agent = registry.try_acquire(task)
        if agent is not None:
            held.append((agent, task))
        else:
            assert all(
                sum(1 for other, _ in held if other.name == worker.name) == worker.capacity
                for worker in workers
                if set(tools) <= set(worker.tools)
            )
    for agent, task in held:
        registry.release(agent, task)
    assert registry.running == 0
    assert all(shown["load"] == 0 for shown in registry.snapshot()["agents"])
