"""A circuit breaker: what keeps failing is left alone for a while, then tried with one attempt.

M. Nygard, "Release It!", 2nd edition (2018), chapter 5: closed, open, half-open.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum

from .kinds import AGENT_FAILURE, NETWORK, RESOURCE, TIMEOUT

COUNTED_KINDS = frozenset({AGENT_FAILURE, TIMEOUT, NETWORK, RESOURCE})
"""Kinds that speak against whoever made the attempt. Any other failure (wrong parameters, a rate limit, an attempt that
was cut off) says neither that it works nor that it does not."""


class CircuitState(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    """All attempts are made. Enough failures in a row open it."""
    OPEN = "open"
    """No attempt is made. Time makes it half-open."""
    HALF_OPEN = "half_open"
    """One attempt is made as a probe. Its success closes the circuit, its failure opens it again, for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An attempt that began, to be told how it ended."""

    key: str
    opening: int
    """Which opening it probes; 0: it began while the circuit was closed."""


@dataclass(slots=True)
class _Circuit:
    """What is known of a key that failed lately."""

    failed_at: deque[float]
    """When the latest failures in a row were; emptied by a success."""
    opening: int = 0
    """A number of this opening that no other has; 0: closed."""
    until: float = 0.0
    """When it becomes half-open."""
    open_s: float = 0.0
    """For how long it was opened."""
    probe_until: float = field(default=float("-inf"))
    """Until when a probe keeps others from being made."""


class CircuitBreaker:
    """Circuits by key (an agent, a tool), closed at first. Pure: it is told the time, in seconds of one clock.

    `failures` failures in a row within `window_s` open a circuit for `open_s`; each failed probe doubles that, up to
    `max_open_s`. Only a probe of the present opening counts while a circuit is not closed: attempts that began before
    tell what is known already. A probe that is not over after `open_s` stays valid, but no longer keeps another from
    being made, so that one that got lost closes nobody off. At most `max_keys` keys that failed lately are kept; those
    that were told of longest ago count as closed then.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        window_s: float = 60.0,
        open_s: float = 30.0,
        max_open_s: float = 600.0,
        max_keys: int = 1024,
    ) -> None:
        """Raises ValueError where a number makes no sense."""
        if failures < 1 or max_keys < 1:
            raise ValueError("failures and max_keys are from 1")
        if not (window_s > 0 and 0 < open_s <= max_open_s):
            raise ValueError("window_s and open_s are over 0, and max_open_s is not less than open_s")
        self._failures = failures
        self._window_s = window_s
        self._open_s = open_s
        self._max_open_s = max_open_s
        self._max_keys = max_keys
        self._circuits: OrderedDict[str, _Circuit] = OrderedDict()
        self._openings = 0

    def state(self, key: str, now: float) -> CircuitState:
        """Where the key's circuit stands."""
        circuit = self._circuits.get(key)
        if circuit is None or not circuit.opening:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < circuit.until else CircuitState.HALF_OPEN

    def allows(self, key: str, now: float) -> bool:
        """Whether an attempt may begin. Asking changes nothing; `begin` does."""
        at = self.open_until(key)
        return at is None or now >= at

    def open_until(self, key: str) -> float | None:
        """When the next attempt may begin, if nothing is recorded before; None where the circuit is closed."""
        circuit = self._circuits.get(key)
        if circuit is None or not circuit.opening:
            return None
        return max(circuit.until, circuit.probe_until)

    def begin(self, key: str, now: float) -> Ticket:
        """An attempt begins; in a half-open circuit it is the probe. Tell its end to `record`."""
        circuit = self._circuits.get(key)
        if circuit is None or not circuit.opening or now < circuit.until:  # begun in spite of an open circuit: no probe
            return Ticket(key=key, opening=0)
        circuit.probe_until = now + self._open_s
        return Ticket(key=key, opening=circuit.opening)

    def record(self, ticket: Ticket, kind: str | None, now: float) -> None:
        """The attempt ended: with a failure of that kind, or with success (None)."""
        circuit = self._circuits.get(ticket.key)
        if circuit is not None and circuit.opening not in {0, ticket.opening}:
            return
        if kind is None:
            self._circuits.pop(ticket.key, None)
        elif kind in COUNTED_KINDS:
            self._fail(ticket.key, circuit or _Circuit(deque(maxlen=self._failures)), now)
        elif circuit is not None:
            circuit.probe_until = float("-inf")

    def _fail(self, key: str, circuit: _Circuit, now: float) -> None:
        self._circuits[key] = circuit
        self._circuits.move_to_end(key)
        if len(self._circuits) > self._max_keys:
            self._circuits.popitem(last=False)
        circuit.failed_at.append(now)
        if not circuit.opening and not self._has_enough(circuit):
            return
        self._openings += 1
        circuit.opening = self._openings
        circuit.open_s = min(circuit.open_s * 2 or self._open_s, self._max_open_s)
        circuit.until = now + circuit.open_s
        circuit.probe_until = float("-inf")

    def _has_enough(self, circuit: _Circuit) -> bool:
        failed_at = circuit.failed_at
        return len(failed_at) == self._failures and failed_at[-1] - failed_at[0] <= self._window_s

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._circuits)
