"""The circuits of agents and tools: which of them an attempt may use now, and what its end says of them.

A failure speaks against the agent that made the attempt. It speaks against a tool where the built-in agent ran it (then
the tool is what failed), or where no other agent offers it; `agent_failure` never does. The built-in agent itself has
no circuit: it is as many things as it has tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .breaker import CircuitBreaker, CircuitState, Ticket
from .kinds import AGENT_FAILURE, UNKNOWN

MAX_OPEN_S = 600.0  # however often probes fail


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A circuit opened, or closed again."""

    subject: str
    """"agent" or "tool"."""
    name: str
    until: float | None
    """When it lets an attempt through as a probe; None: it closed."""


class Circuits:
    """Circuits of this process, in its memory. It is told the time, in seconds of one clock."""

    def __init__(self, failures: int = 10, open_s: float = 30.0) -> None:
        """`failures` in a row open a circuit for `open_s`; 0: none ever opens."""
        self._is_on = failures > 0
        self._breaker = CircuitBreaker(failures=max(failures, 1), open_s=open_s, max_open_s=max(MAX_OPEN_S, open_s))

    def __bool__(self) -> bool:
        """Whether anything failed lately."""
        return len(self._breaker) > 0

    def open_tool(self, tools: Sequence[str], now: float) -> tuple[str, float] | None:
        """The tool that lets no attempt begin for the longest, and until when; None where all of them do."""
        closed_off = self._closed_off(tools, _tool, now)
        return max(closed_off.items(), key=lambda entry: entry[1]) if closed_off else None

    def open_agents(self, names: Sequence[str], now: float) -> dict[str, float]:
        """Those of the agents that let no attempt begin, each with until when."""
        return self._closed_off(names, _agent, now)

    def _closed_off(self, names: Sequence[str], key: Callable[[str], str], now: float) -> dict[str, float]:
        times = ((name, self._breaker.open_until(key(name))) for name in names)
        return {name: until for name, until in times if until is not None and until > now}

    def state(self, subject: str, name: str, now: float) -> tuple[CircuitState, float | None]:
        """Where the circuit of an agent or tool stands, and when its next attempt may begin where it is not closed."""
        key = f"{subject}:{name}"
        return self._breaker.state(key, now), self._breaker.open_until(key)

    def begin(self, agent: str | None, tools: Sequence[str], now: float) -> tuple[Ticket, ...]:
        """An attempt begins; tell its end with these. `agent` is None for the built-in one."""
        return tuple(self._breaker.begin(key, now) for key in _keys(agent, tools))

    def ended(
        self, agent: str | None, tools: Sequence[str], tickets: Sequence[Ticket], kind: str | None, now: float
    ) -> list[CircuitChange]:
        """An attempt of that agent (None: the built-in one) ended: with success (None), or with a failure of that
        kind that the `tools` had a part in. Answers the circuits that opened or closed."""
        if not self._is_on:
            return []
        held: dict[str, Ticket] = {ticket.key: ticket for ticket in tickets}
        changes = []
        for key in _keys(agent, () if kind == AGENT_FAILURE else tools):
            before = self._breaker.state(key, now)
            self._breaker.record(held.pop(key, Ticket(key=key, opening=0)), kind, now)
            after = self._breaker.state(key, now)
            if after is not before and after is not CircuitState.HALF_OPEN:
                subject, _, name = key.partition(":")
                changes.append(CircuitChange(subject, name, self._breaker.open_until(key)))
        for ticket in held.values():  # probes of what had no part in it: another may be made
            self._breaker.record(ticket, UNKNOWN, now)
        return changes


def _keys(agent: str | None, tools: Sequence[str]) -> list[str]:
    keys = [_tool(tool) for tool in dict.fromkeys(tools)]
    return keys if agent is None else [_agent(agent), *keys]


def _agent(name: str) -> str:
    return f"agent:{name}"


def _tool(name: str) -> str:
    return f"tool:{name}"
