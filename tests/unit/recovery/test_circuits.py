"""Circuits: whom a failure speaks against, and what the journal hears of it."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.recovery.breaker import CircuitState
from contexten.extensions.flow.recovery.circuits import CircuitChange, Circuits


@pytest.fixture
def circuits() -> Circuits:
    return Circuits(failures=2, open_s=30)


def fail(circuits: Circuits, agent: str | None, tools: list[str], kind: str, *, at: float) -> list[CircuitChange]:
    return circuits.ended(agent, tools, circuits.begin(agent, tools, at), kind, at)


def test_failures_open_the_circuits_of_the_agent_and_of_its_tools(circuits: Circuits) -> None:
    assert not circuits
    assert fail(circuits, "a", ["api"], "network", at=0) == []
    assert circuits
    changes = fail(circuits, "a", ["api"], "timeout", at=1)
    assert changes == [CircuitChange("agent", "a", 31), CircuitChange("tool", "api", 31)]
    assert circuits.open_agents(["a", "b"], 5) == {"a": 31}
    assert circuits.open_tool(["other", "api"], 5) == ("api", 31)
    assert circuits.open_tool(["api"], 31) is None
    assert circuits.state("tool", "api", 31) == (CircuitState.HALF_OPEN, 31)


def test_an_agents_own_failure_does_not_speak_against_its_tools(circuits: Circuits) -> None:
    fail(circuits, "a", ["api"], "agent_failure", at=0)
    changes = fail(circuits, "a", ["api"], "agent_failure", at=1)
    assert [change.name for change in changes] == ["a"]
    assert circuits.open_tool(["api"], 2) is None


def test_the_built_in_agent_has_no_circuit_of_its_own(circuits: Circuits) -> None:
    fail(circuits, None, ["http_client"], "network", at=0)
    assert fail(circuits, None, ["http_client"], "network", at=1) == [CircuitChange("tool", "http_client", 31)]


def test_a_probe_that_succeeds_closes_and_one_that_fails_opens_for_longer(circuits: Circuits) -> None:
    for at in (0, 1):
        fail(circuits, "a", [], "network", at=at)
    assert fail(circuits, "a", [], "network", at=31) == [CircuitChange("agent", "a", 91)]
    probe = circuits.begin("a", [], 91)
    assert circuits.open_agents(["a"], 92) == {"a": 121}  # one at a time
    assert circuits.ended("a", [], probe, None, 93) == [CircuitChange("agent", "a", None)]
    assert not circuits


def test_a_probe_whose_failure_was_not_its_part_keeps_no_other_from_being_made(circuits: Circuits) -> None:
    for at in (0, 1):
        fail(circuits, "a", ["api"], "network", at=at)
    probe = circuits.begin("a", ["api"], 31)
    assert circuits.open_tool(["api"], 32) is not None
    circuits.ended("a", ["api"], probe, "agent_failure", 32)
    assert circuits.open_tool(["api"], 32) is None
    assert circuits.state("tool", "api", 32)[0] is CircuitState.HALF_OPEN
    assert circuits.open_agents(["a"], 33) == {"a": 92}


def test_what_began_before_the_circuit_opened_neither_opens_nor_closes_it(circuits: Circuits) -> None:
    early = circuits.begin("a", [], 0)
    for at in (1, 2):
        fail(circuits, "a", [], "network", at=at)
    assert circuits.ended("a", [], early, None, 3) == []
    assert circuits.open_agents(["a"], 3) == {"a": 32}


def test_circuits_that_are_switched_off_never_open() -> None:
    circuits = Circuits(failures=0)
    for at in range(10):
        assert fail(circuits, "a", ["api"], "network", at=at) == []
    assert not circuits
    assert circuits.state("agent", "a", 10) == (CircuitState.CLOSED, None)
