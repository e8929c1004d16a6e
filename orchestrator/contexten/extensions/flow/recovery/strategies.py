"""What is done about each kind of failure before the next attempt, and how users add to it."""

from __future__ import annotations

import gc
import math
from collections import UserDict
from collections.abc import Mapping
from types import MappingProxyType

from typing_extensions import override

from .context import RecoveryContext, RecoveryStrategy
from .kinds import AGENT_FAILURE, NETWORK, NEVER_RETRIED, RATE_LIMIT, RESOURCE, TIMEOUT, check_kind

TIMEOUT_FACTOR = 2.0
MAX_TIMEOUT_GROWTH = 10.0  # times the task's own timeout_s: what takes longer than that hangs
DELAY_FACTOR = 2.0
MAX_RETRY_AFTER_S = 3600.0  # a server that asks for more is asked again after an hour


async def raise_timeout(context: RecoveryContext) -> None:
    """Give the next attempt twice the time, at most ten times what the task states."""
    if context.timeout_s is None:
        context.steps.append("the attempt had no timeout_s to raise")
        return
    first_s = context.timeout_s if context.first_timeout_s is None else context.first_timeout_s
    most_s = first_s * MAX_TIMEOUT_GROWTH
    context.next_timeout_s = max(context.timeout_s, min(context.timeout_s * TIMEOUT_FACTOR, most_s))


async def change_agent(context: RecoveryContext) -> None:
    """Let another able agent try. Once all have failed, the one that failed last begins anew, and so does the round."""
    if context.agent is None:
        return
    others = set(context.agents) - {context.agent}
    if others - context.avoid_agents:
        context.avoid_agents.add(context.agent)
        return
    if "exit_code" not in context.details:  # a program that ended so says nothing of the agent that started it
        await context.reinitialize(context.agent)
    context.avoid_agents.clear()
    if others:
        context.avoid_agents.add(context.agent)


async def free_resources(context: RecoveryContext) -> None:
    """Give back memory, files and connections, do less at once, and wait longer."""
    await context.close_caches()
    context.steps.append(f"garbage collected: {gc.collect()} objects")
    context.lower_concurrency()
    await wait_longer(context)


async def wait_longer(context: RecoveryContext) -> None:
    """Wait as long as the server asked (`Retry-After`, RFC 9110 section 10.2.3), at most an hour; where it did not
    ask, twice as long as planned, within the task's max_delay_s."""
    asked_s = context.details.get("retry_after_s")
    if isinstance(asked_s, int | float) and not isinstance(asked_s, bool) and 0 <= asked_s < math.inf:
        context.steps.append(f"the server asked to wait {asked_s:g} s")
        context.delay_s = max(context.delay_s, min(float(asked_s), MAX_RETRY_AFTER_S))
    else:
        context.delay_s = max(context.delay_s, min(context.delay_s * DELAY_FACTOR, context.max_delay_s))


BUILTIN: Mapping[str, RecoveryStrategy] = MappingProxyType(
    {
        TIMEOUT: raise_timeout,
        AGENT_FAILURE: change_agent,
        RESOURCE: free_resources,
        NETWORK: wait_longer,
        RATE_LIMIT: wait_longer,
    }
)
"""The strategies that are there from the start, by the kind of failure. Other kinds are tried again as planned."""


class RecoveryStrategies(UserDict[str, RecoveryStrategy]):
    """Strategies by kind of failure: the built-in ones, which a user adds to, replaces, or deletes.

    Setting one raises TypeError where it cannot be called, and ValueError where no failure that is tried again can
    have that kind.
    """

    def __init__(self, own: Mapping[str, RecoveryStrategy] | None = None) -> None:
        super().__init__({**BUILTIN, **(own or {})})

    @override
    def __setitem__(self, kind: str, strategy: RecoveryStrategy) -> None:
        if not callable(strategy):
            raise TypeError(f"the strategy for {kind!r} is an async function of the context, got {strategy!r}")
        check_kind(kind)
        if kind in NEVER_RETRIED:
            raise ValueError(f"{kind} errors are never retried, so no strategy is asked; map the error to another kind")
        super().__setitem__(kind, strategy)
