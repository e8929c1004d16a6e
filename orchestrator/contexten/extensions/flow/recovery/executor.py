"""FlowExecutor: how often attempts are made, after what delays, and what is done about failures between them."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any

from .context import RecoveryStrategy
from .error_kinds import ErrorKinds
from .retry import RetryPolicy
from .rules import RecoveryRules
from .strategies import RecoveryStrategies


class FlowExecutor:
    """The default for tasks that state no `retry`, and recovery; given as `executor=` to a manager, orchestrator or
    scheduler. Of several on one database the one given last counts."""

    def __init__(
        self,
        max_retries: int = 3,
        retry_delay: float = 1.0,
        enable_recovery: bool = True,
        *,
        recovery_strategies: Mapping[str, RecoveryStrategy] | None = None,
        error_kinds: Mapping[Any, str] | None = None,
    ) -> None:
        """`max_retries` tries follow the first; `retry_delay` seconds before the first of them, doubling each time.

        `enable_recovery=False`: attempts are made again as planned, no strategy is asked. `recovery_strategies` (by
        kind of failure) go on top of the built-in ones. `error_kinds` say what errors are: from an exception class, its
        name, `http:STATUS` or `exit:CODE` to a kind; they go before those of the settings.

        Raises TypeError or ValueError where something makes no sense.
        """
        if not _is(int, max_retries):
            raise TypeError(f"max_retries is {max_retries!r}; it is a whole number, from 0")
        if not _is(int | float, retry_delay):
            raise TypeError(f"retry_delay is {retry_delay!r}; it is a number of seconds, from 0")
        if not isinstance(enable_recovery, bool):
            raise TypeError(f"enable_recovery is {enable_recovery!r}; it is True or False")
        if max_retries < 0:
            raise ValueError(f"max_retries is {max_retries}; it counts from 0")
        if not retry_delay >= 0:  # nor NaN
            raise ValueError(f"retry_delay is {retry_delay}; it is in seconds, from 0")
        self.max_retries = max_retries
        self.retry_delay = retry_delay
        self.enable_recovery = enable_recovery
        self.recovery_strategies = RecoveryStrategies(recovery_strategies)
        """By kind of failure: the built-in ones, to be added to, replaced or deleted at any time."""
        self.error_kinds = dict(error_kinds or {})
        ErrorKinds(self.error_kinds)

    @property
    def policy(self) -> RetryPolicy:
        """The same as a policy of retries."""
        return RetryPolicy(max_attempts=self.max_retries + 1, delay_s=self.retry_delay)

    def rules(self, settings_kinds: Mapping[str, str]) -> RecoveryRules:
        """What it says of failures; the settings' kinds of errors go after its own."""
        return RecoveryRules(
            retry=self.policy,
            strategies=self.recovery_strategies if self.enable_recovery else {},
            kinds=ErrorKinds(self.error_kinds, settings_kinds),
        )


def _is(kind: type | UnionType, value: object) -> bool:
    """Whether it is a number of that kind; bool is none."""
    return isinstance(value, kind) and not isinstance(value, bool)
