"""Asks for the attempt after a failed one, and gives strategies what they may do to this process."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..agents.failures import kept_text
from ..definition import compile_expression
from ..recovery.context import RecoveryContext
from ..recovery.kinds import INTERRUPTED
from ..recovery.recovering import recover
from ..recovery.retry import RetryDecision
from .attempt import Attempt
from .next_attempt import NextAttempt
from .outcome import Failed
from .timers import Alarm
from .unit import Unit

if TYPE_CHECKING:
    from ..agents.staff import Staff
    from ..recovery.retry import RetryPolicy
    from .host import Host

logger = logging.getLogger(__name__)

LOWERED_S = 30.0  # for how long an agent has fewer places


class Recoverer:
    """Plans next attempts. Runs in the failed attempt's own task, so that a slow strategy holds no other run up."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._restore: dict[str, Alarm] = {}

    async def next_attempt(
        self, failure: Failed, unit: Unit, attempt: Attempt, policy: RetryPolicy, staff: Staff
    ) -> Failed:
        """The failure with what follows it: whether there is another attempt, and what recovery did for it.

        Never raises but on cancellation.
        """
        host, context = self._host, attempt.context
        decision = policy.decide(failure.kind, context.attempt, host.clock.random)
        if failure.kind == INTERRUPTED and unit.node.task.on_interrupt == "fail":  # a worker elsewhere died
            decision = RetryDecision(retry=False, reason="on_interrupt is fail")
        failure = replace(failure, decision=decision)
        if not decision.retry or failure.kind not in host.rules.strategies:
            return failure
        task, item = unit.node.task, unit.row.item
        recovery = await recover(
            RecoveryContext(
                run_id=context.run_id,
                flow_id=context.flow_id,
                task=context.task,
                item=None if item < 0 else item,
                kind=failure.kind,
                message=failure.message,
                details=failure.details or {},
                attempt=context.attempt,
                max_attempts=policy.max_attempts,
                agent=attempt.agent.name,
                agents=staff.able(task),
                timeout_s=context.timeout_s,
                first_timeout_s=task.timeout_s,
                max_delay_s=policy.max_delay_s,
                delay_s=decision.delay_s,
                avoid_agents=set(NextAttempt.of(unit).avoid_agents),
                host=_Resources(self, attempt.agent.name),
            ),
            host.rules.strategies,
            host.clock,
        )
        for level, line in recovery.lines:  # without a traceback: a stranger's may hold a secret
            if level in ("warning", "error"):
                extra = {"action": "recover", "run_id": context.run_id, "task": context.task}
                told = kept_text(line, host.vault)
                logger.warning("recovery after attempt %s: %s", context.attempt_id, told, extra=extra)
        return replace(failure, recovery=recovery)

    async def reinitialize(self, agent_name: str) -> None:
        """Let an agent begin anew. Raises what it raises."""
        renew = getattr(self._host.registry.find(agent_name), "reinitialize", None)
        if renew is not None:
            await renew()

    async def close_caches(self) -> None:
        """Close what the built-in tools keep open, forget compiled expressions and plans; all come back by use."""
        compile_expression.cache_clear()
        self._host.plans.clear()
        if self._host.registry.builtin is not None:
            await self._host.registry.builtin.aclose()

    def lower(self, agent_name: str) -> int | None:
        """Give an agent fewer places for LOWERED_S; answers how many, None where it has but one."""
        limit = self._host.registry.lower(agent_name)
        if limit is not None:
            earlier = self._restore.get(agent_name)
            if earlier is not None:
                earlier.cancel()
            self._restore[agent_name] = self._host.timers.after(LOWERED_S, lambda: self._restored(agent_name))
        return limit

    def _restored(self, agent_name: str) -> None:
        self._restore.pop(agent_name, None)
        self._host.registry.restore(agent_name)
        self._host.agents_changed()


@dataclass(frozen=True, slots=True)
class _Resources:
    """What the strategies of one failed attempt may do."""

    recoverer: Recoverer
    agent: str

    async def reinitialize(self, agent_name: str) -> None:
        await self.recoverer.reinitialize(agent_name)

    async def close_caches(self) -> None:
        await self.recoverer.close_caches()

    def lower_concurrency(self) -> int | None:
        return self.recoverer.lower(self.agent)
