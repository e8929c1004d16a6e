"""Whether and when a failed attempt is tried again: exponential backoff with jitter, decided without doing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .kinds import NEVER_RETRIED

if TYPE_CHECKING:
    from ..definition import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and after what delays a task is tried. Delays in seconds; `jitter` is a fraction of the delay.

    The delay before try n + 1 is `delay_s * backoff ** (n - 1)`, at most `max_delay_s`, spread evenly by
    plus or minus `jitter` (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    max_attempts: int = 4
    delay_s: float = 1.0
    backoff: float = 2.0
    max_delay_s: float = 60.0
    jitter: float = 0.1
    on: frozenset[str] | None = None
    """Kinds that are retried; None: all that can be."""

    @classmethod
    def of(cls, retry: Retry, default: RetryPolicy) -> RetryPolicy:
        """The policy that a task's `retry` states; how often, where it does not say, is the default's."""
        return cls(
            max_attempts=default.max_attempts if retry.max_attempts is None else retry.max_attempts,
            delay_s=retry.delay_s,
            backoff=retry.backoff,
            max_delay_s=retry.max_delay_s,
            jitter=retry.jitter,
            on=None if retry.on is None else frozenset(retry.on),
        )

    def decide(self, kind: str, attempt: int, random: Callable[[], float]) -> RetryDecision:
        """What to do after try number `attempt` (from 1) failed with that kind; `random` draws from [0, 1)."""
        if kind in NEVER_RETRIED:
            return RetryDecision(retry=False, reason=f"{kind} errors are never retried")
        if self.on is not None and kind not in self.on:
            return RetryDecision(retry=False, reason=f"retry.on does not name {kind}")
        if attempt >= self.max_attempts:
            return RetryDecision(retry=False, reason=f"all {self.max_attempts} attempts were made")
        delay = min(self.max_delay_s, self.delay_s * self.backoff ** min(attempt - 1, 64))
        delay *= 1 + self.jitter * (2 * random() - 1)
        return RetryDecision(retry=True, delay_s=max(0.0, min(delay, self.max_delay_s)), reason=f"retry after {kind}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """Try again after `delay_s` seconds, or give up."""

    retry: bool
    delay_s: float = 0.0
    reason: str = ""
