"""What is free at the moment of a decision: slots and shares of pools."""

from __future__ import annotations

from collections.abc import Mapping

from .protocol import Situation

SLOT = ""
"""Stands among the pools for the slot that every run holds."""

ROUNDING = 1e-9  # sums of shares such as 1/3 may miss the whole by less than this

Needs = Mapping[str, float]
"""What a run holds while it runs: of each pool a share from 0 to 1, and one slot."""


class Room:
    """The free slots, and of each pool the share that nobody holds.

    Amounts count as shares of their pool, and no share is more than the whole: a run that demands more than there is
    (or a pool that is not declared) takes the pool for itself. So every run fits when nothing runs.
    """

    def __init__(self, situation: Situation) -> None:
        self._capacity = situation.capacity
        self._free: dict[str, float] = {SLOT: float(situation.free_slots)}
        for run in situation.running:
            self._add(self._shares(run.demands), -1.0)

    @property
    def has_slot(self) -> bool:
        """Whether another run may start at all."""
        return self._free[SLOT] >= 1

    def needs(self, demands: Mapping[str, float]) -> Needs:
        """What a run with these demands holds."""
        return {SLOT: 1.0, **self._shares(demands)}

    def has(self, needs: Needs) -> bool:
        """Whether all of it is free."""
        return all(self._free.get(pool, 1.0) + ROUNDING >= amount for pool, amount in needs.items())

    def take(self, needs: Needs) -> None:
        """Hold it; what is not there is owed (and is free again only after so much was given back)."""
        self._add(needs, -1.0)

    def give(self, needs: Needs) -> None:
        """Give it back."""
        self._add(needs, 1.0)

    def copy(self) -> Room:
        """The same room, to plan with."""
        other = object.__new__(Room)
        other._capacity, other._free = self._capacity, dict(self._free)
        return other

    def _add(self, needs: Needs, sign: float) -> None:
        for pool, amount in needs.items():
            self._free[pool] = self._free.get(pool, 1.0) + sign * amount

    def _shares(self, demands: Mapping[str, float]) -> dict[str, float]:
        shares = {}
        for pool, amount in demands.items():
            if amount > 0:
                size = self._capacity.get(pool, 0.0)
                shares[pool] = amount / size if amount < size else 1.0
        return shares
