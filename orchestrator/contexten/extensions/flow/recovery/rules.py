"""What is done about failures in a process: how often attempts are made, what errors are called, what recovery does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .context import RecoveryStrategy
from .error_kinds import ErrorKinds
from .retry import RetryPolicy
from .strategies import BUILTIN


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryRules:
    """The rules of a process; those of the executor that was given last."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """For tasks that state no `retry`."""
    strategies: Mapping[str, RecoveryStrategy] = field(default_factory=lambda: BUILTIN)
    """By kind of failure; read anew for each failure, so that a user's may be added at any time."""
    kinds: ErrorKinds = field(default_factory=ErrorKinds)

    def named_kinds(self) -> frozenset[str]:
        """The kinds that strategies or rules name."""
        return self.kinds.kinds | self.strategies.keys()
