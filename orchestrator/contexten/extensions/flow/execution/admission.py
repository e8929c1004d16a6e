"""Whether an attempt may begin now: an agent with a free place, closed circuits, a token of each limited tool."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..agents.protocol import Agent
from ..agents.registry import AgentRegistry
from ..agents.staff import Staff
from ..clock import Clock, iso
from ..definition import Task
from ..recovery.circuits import CircuitChange, Circuits
from ..scheduling.rates import RateLimits
from .next_attempt import NextAttempt
from .timers import Alarm, Timers
from .unit import Unit

PROBE_S = 30.0  # how long one for whom a circuit has become half-open waits for the probe of another besides


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an attempt does not begin though agents may be free."""

    what: str
    """"circuit of tool X open" or "rate limit of tool X"."""
    until: float
    """When it is looked at again; seconds of the monotonic clock."""
    patience: float = math.inf
    """From then on circuits keep it no longer; seconds of the monotonic clock."""


def circuit_names(task: Task, tools: Sequence[str]) -> tuple[str, ...]:
    """The names under which circuits know some of a task's tools. Calls of http_client to one host say nothing
    of another: it has a circuit for each host, and none where the task's text does not tell the host."""
    names = []
    for name in tools:
        if name != "http_client":
            names.append(name)
        elif (host := _host(task.parameters.get("url"))) is not None:
            names.append(f"{name} at {host}")
    return tuple(names)


def _host(url: object) -> str | None:
    if not isinstance(url, str):
        return None
    literal, braces, _ = url.partition("{{")
    parts = urlsplit(literal)
    return parts.netloc.rpartition("@")[2] or None if not braces or parts.path else None


class Admission:
    """Gives attempts their agents. Everything happens on the event loop; circuits and limits are this process's own."""

    def __init__(
        self,
        registry: AgentRegistry,
        circuits: Circuits,
        limits: RateLimits,
        clock: Clock,
        timers: Timers,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when one that was held may begin."""
        self._registry = registry
        self._circuits = circuits
        self._limits = limits
        self._clock = clock
        self._timers = timers
        self._wake = wake
        self._alarm: Alarm | None = None
        self._alarm_at = math.inf

    def admit(self, unit: Unit, staff: Staff, earlier: Hold | None) -> Agent | Hold | None:
        """Take a place of an agent for a unit's attempt; what holds it up, or None where all agents are busy.

        `earlier` is what held it before, if anything did: a circuit holds an attempt for as long as it was open when
        the attempt came to it, and for the time of one probe, but never longer.
        """
        avoided = NextAttempt.of(unit).avoid_agents if unit.row.error is not None else frozenset()
        task = unit.node.task
        if not self._circuits and not self._limits:  # the usual case, and so the cheap one
            return staff.try_acquire(task, avoided)
        now = self._clock.monotonic()
        is_patient = earlier is None or now < earlier.patience
        if is_patient and self._circuits:
            found = self._closed_off(task, staff, avoided, now)
            if isinstance(found, Hold):
                patience = min(math.inf if earlier is None else earlier.patience, found.until + PROBE_S)
                return self._held(Hold(found.what, min(found.until, patience), patience))
            avoided = found
        tools = staff.called_tools(task)
        if self._limits and (late := self._limits.next_token(tools, now)) is not None:
            patience = math.inf if earlier is None else earlier.patience
            return self._held(Hold(f"rate limit of tool {late[0]}", late[1], patience))
        agent = staff.try_acquire(task, avoided)
        if agent is None:
            return None
        self._limits.take(tools, now)
        if self._circuits:
            unit.tickets = self._circuits.begin(self._named(agent), circuit_names(task, tools), now)
        return agent

    def _closed_off(self, task: Task, staff: Staff, avoided: frozenset[str], now: float) -> Hold | frozenset[str]:
        """What holds the task up, or the agents to avoid."""
        tool = self._circuits.open_tool(circuit_names(task, staff.called_tools(task)), now)
        if tool is not None:
            return Hold(f"circuit of tool {tool[0]} open", tool[1])
        able = staff.able(task)
        closed_off = self._circuits.open_agents(able, now)
        if not closed_off:
            return avoided
        if len(closed_off) == len(able):  # nobody would do better: their own retries space the attempts
            return avoided
        self._look_again(min(closed_off.values()))  # the others may all be busy then
        both = avoided | closed_off.keys()
        return both if not both.issuperset(able) else frozenset(closed_off)

    def ended(
        self, unit: Unit, staff: Staff, agent: Agent, kind: str | None, tool: str | None
    ) -> Sequence[CircuitChange]:
        """An attempt ended: with success (None) or a failure of that kind, while `tool` was at work, where the agent
        tells. Answers the circuits that opened or closed."""
        tickets, unit.tickets = unit.tickets, ()
        if kind is None and not self._circuits:
            return ()
        task = unit.node.task
        name = self._named(agent)
        tools = circuit_names(task, staff.called_tools(task))
        if kind is not None:
            if name is None:
                tools = () if tool is None else circuit_names(task, (tool,))
            elif len(staff.able(task)) > 1:  # another agent may do better with the same tools
                tools = ()
        return self._circuits.ended(name, tools, tickets, kind, self._clock.monotonic())

    def told(self, hold: Hold) -> str:
        """What holds an attempt up, and until when, for people."""
        return f"{hold.what} until {self.wall_time(hold.until)}"

    def wall_time(self, at: float) -> str:
        """A time of the monotonic clock for people."""
        return iso(self._clock.timestamp() + at - self._clock.monotonic()) or ""

    def _named(self, agent: Agent) -> str | None:
        """The agent's name for its circuit; the built-in one has none."""
        return None if agent is self._registry.builtin else agent.name

    def _held(self, hold: Hold) -> Hold:
        self._look_again(hold.until)
        return hold

    def _look_again(self, at: float) -> None:
        if at < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = at
            self._alarm = self._timers.after(at - self._clock.monotonic(), self._ring)

    def _ring(self) -> None:
        self._alarm_at = math.inf
        self._wake()
