"""What a recovery strategy sees of a failed attempt, and what it may change about the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_LINES = 100  # of one recovery: a strategy that floods its log must not flood the journal
MAX_LINE = 4000  # characters


class RecoveryHost(Protocol):
    """What strategies may ask of the process around them."""

    async def reinitialize(self, agent_name: str) -> None:
        """Let that agent close what it holds and begin anew."""
        ...

    async def close_caches(self) -> None:
        """Give back what was kept to be faster: idle connections, compiled expressions."""
        ...

    def lower_concurrency(self) -> int | None:
        """Run fewer attempts at once for a while; answers how many, None where they cannot be fewer."""
        ...


@dataclass(slots=True, kw_only=True)
class RecoveryContext:
    """A failed attempt, and the next one as it is planned. Times in seconds.

    A strategy changes `delay_s`, `next_timeout_s` and `avoid_agents`, or calls `give_up`; the rest only tells it what
    happened. What it changed reaches the journal by itself, and so does what the methods did; `steps` takes reasons.
    """

    run_id: str
    flow_id: str
    task: str
    item: int | None = None
    """The item's number in a for_each, from 0."""
    kind: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the failure carries besides: `status`, `exit_code`, `retry_after_s`, or an agent's own JSON data."""
    attempt: int
    """Which try failed, from 1."""
    max_attempts: int
    agent: str | None
    """Who made the attempt; None where the task needs no agent."""
    agents: tuple[str, ...] = ()
    """All agents that are able to take the task."""
    timeout_s: float | None = None
    """The failed attempt's limit; None: it had none."""
    first_timeout_s: float | None = None
    """The limit that the task states."""
    max_delay_s: float = 60.0
    """The longest delay that the task's `retry` allows."""
    delay_s: float
    """How long the next attempt waits."""
    next_timeout_s: float | None = field(init=False)
    """The next attempt's limit; None: none."""
    avoid_agents: set[str] = field(default_factory=set)
    """Who is not to make the next attempt, unless nobody else is able to."""
    host: RecoveryHost = field(repr=False)
    steps: list[str] = field(default_factory=list, init=False)
    """What was done and why, in words, for the journal."""
    lines: list[tuple[str, str]] = field(default_factory=list, init=False)
    """What was logged: (level, message)."""
    given_up: str | None = field(default=None, init=False)
    """Why there is no next attempt; None: there is one."""

    def __post_init__(self) -> None:
        self.next_timeout_s = self.timeout_s

    def give_up(self, reason: str) -> None:
        """Make no further attempt: the task has failed."""
        self.given_up = reason

    def log(self, level: str, message: str) -> None:
        """Write a line to the run's journal (`level`: debug, info, warning or error)."""
        if len(self.lines) < MAX_LINES:
            self.lines.append((str(level), str(message)[:MAX_LINE]))

    async def reinitialize(self, agent_name: str) -> bool:
        """Let an agent begin anew; answers whether it did. Raises ValueError where it is none of `agents`."""
        if agent_name not in self.agents:
            raise ValueError(f"{agent_name!r} is no agent of this task; there are {', '.join(self.agents) or 'none'}")
        return await self._try(
            lambda: self.host.reinitialize(agent_name),
            f"{agent_name} was reinitialised",
            f"reinitialising {agent_name}",
        )

    async def close_caches(self) -> bool:
        """Give back what was kept to be faster; answers whether that worked."""
        return await self._try(self.host.close_caches, "caches were closed", "closing caches")

    def lower_concurrency(self) -> int | None:
        """Run fewer attempts at once for a while; answers how many, None where they cannot be fewer."""
        limit = self.host.lower_concurrency()
        if limit is not None:
            self.steps.append(f"concurrency lowered to {limit}")
        return limit

    async def _try(self, act: Callable[[], Awaitable[None]], done: str, what: str) -> bool:
        """Do what may fail without keeping the next attempt from being made."""
        try:
            await act()
        except Exception as error:  # noqa: BLE001 - closing runs an agent's own code, which may raise anything
            self.log("warning", f"{what} failed: {describe(error)}")
            return False
        self.steps.append(done)
        return True


RecoveryStrategy = Callable[[RecoveryContext], Awaitable[object] | object]
"""An async function of the context, or a plain one that does not block. It answers None (try again, with what it
changed), False (give up), or a mapping with any of `delay_s`, `timeout_s`, `agent` and `give_up`."""


def describe(error: BaseException) -> str:
    """An exception in words, whatever its own `__str__` does."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - `__str__` of a stranger may raise anything
        text = ""
    return f"{name}: {text}" if text else name
