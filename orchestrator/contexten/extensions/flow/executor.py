"""FlowExecutor: how often, and after what delays, attempts are made."""

from __future__ import annotations

from .recovery.retry import RetryPolicy


class FlowExecutor:
    """The default for tasks that state no `retry`; given as `executor=` to a manager, orchestrator or scheduler."""

    def __init__(self, max_retries: int = 3, retry_delay: float = 1.0, enable_recovery: bool = True) -> None:
        """`max_retries` tries follow the first; `retry_delay` seconds before the first of them, doubling each time.
        `enable_recovery` is for what may change a next attempt besides its time; in this version nothing does.
        Raises ValueError where a number is negative."""
        if max_retries < 0:
            raise ValueError(f"max_retries is {max_retries}; it counts from 0")
        if retry_delay < 0:
            raise ValueError(f"retry_delay is {retry_delay}; it is in seconds, from 0")
        self.max_retries = max_retries
        self.retry_delay = retry_delay
        self.enable_recovery = enable_recovery

    @property
    def policy(self) -> RetryPolicy:
        """The same as a policy of retries."""
        return RetryPolicy(max_attempts=self.max_retries + 1, delay_s=self.retry_delay)
