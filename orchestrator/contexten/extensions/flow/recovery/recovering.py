"""Ask the strategy of a failure's kind about the next attempt. Whatever it does, there is an answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import anyio

from ..clock import Clock
from ..definition import MAX_S
from .context import MAX_LINE, MAX_LINES, RecoveryContext, RecoveryStrategy, describe

STRATEGY_LIMIT_S = 30.0  # its task waits for it: longer than any call that is worth a wait
_SHOWN = 200  # characters of a wrong value


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What follows a failed attempt that is to be tried again. Times in seconds."""

    delay_s: float
    timeout_s: float | None
    avoid_agents: frozenset[str]
    give_up: str | None
    """Why there is no next attempt; None: there is one."""
    steps: tuple[str, ...] = ()
    """What was done and changed, and why, in words."""
    lines: tuple[tuple[str, str], ...] = ()
    """What the strategy logged, and what was wrong with it: (level, message). Not masked yet."""


async def recover(context: RecoveryContext, strategies: Mapping[str, RecoveryStrategy], clock: Clock) -> Recovery:
    """The next attempt as the strategy for the failure's kind wants it; as planned where there is none.

    Never raises but on cancellation from outside. A strategy that raises, takes longer than 30 s or changes something
    to what makes no sense changes nothing, and `lines` says so: its changes count as a whole or not at all. One that
    shields itself from cancellation is waited for.
    """
    planned = _next_attempt(context)
    strategy = strategies.get(context.kind)
    if strategy is None:
        return planned
    kind, lines = context.kind, context.lines  # from here on the context is in a stranger's hands
    steps: list[Any] = context.steps
    wanted = await _ask(strategy, context, clock)
    if isinstance(wanted, str):
        text = f"The next attempt is as planned: the recovery strategy for {kind} {wanted}"
        lines.append(("warning", text[:MAX_LINE]))
        wanted = planned
    reasons = [step[:MAX_LINE] for step in steps[:MAX_LINES] if isinstance(step, str)]
    return replace(wanted, steps=(*reasons, *_changes(planned, wanted)), lines=tuple(lines))


async def _ask(strategy: RecoveryStrategy, context: RecoveryContext, clock: Clock) -> Recovery | str:
    """What the strategy wants, or what was wrong with it."""
    wanted: Recovery | str = f"took longer than {STRATEGY_LIMIT_S:g} s"
    async with anyio.create_task_group() as group:

        async def limit() -> None:
            await clock.sleep(STRATEGY_LIMIT_S)
            group.cancel_scope.cancel()

        group.start_soon(limit)
        wanted = await _answer(strategy, context)
        group.cancel_scope.cancel()
    return wanted


async def _answer(strategy: RecoveryStrategy, context: RecoveryContext) -> Recovery | str:
    try:
        answer = strategy(context)
        if inspect.isawaitable(answer):
            answer = await answer
        _take(answer, context)
        return _next_attempt(context)
    except asyncio.CancelledError as raised:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        error: BaseException = raised  # of its own making
    except (Exception, SystemExit) as raised:  # noqa: BLE001 - a strategy may be anybody's
        error = raised
    return f"failed: {describe(error)}"


def _take(answer: object, context: RecoveryContext) -> None:
    """Apply what a strategy answered. Raises TypeError or ValueError where it is nothing that one can answer."""
    if answer is None or answer is True:
        return
    if answer is False:
        context.give_up(f"the recovery strategy for {context.kind} gave up")
        return
    if not isinstance(answer, Mapping):
        raise TypeError(f"it answered {_shown(answer)}, not None, False or a mapping")
    for name, value in answer.items():
        if name == "delay_s":
            context.delay_s = value
        elif name == "timeout_s":
            context.next_timeout_s = value
        elif name == "agent":
            if value not in context.agents:
                able = ", ".join(context.agents) or "none"
                raise ValueError(f"agent is {_shown(value)}; able to take the task: {able}")
            context.avoid_agents = set(context.agents) - {value}
        elif name == "give_up":
            if not isinstance(value, bool | str):
                raise TypeError(f"give_up is {_shown(value)}; it is true, false or a reason")
            if value:
                context.give_up(f"the recovery strategy for {context.kind} gave up" if value is True else value)
        else:
            raise ValueError(f"it answered {_shown(name)}; it can answer delay_s, timeout_s, agent and give_up")


def _next_attempt(context: RecoveryContext) -> Recovery:
    """The next attempt as the context has it now. Raises TypeError or ValueError where that makes no sense."""
    avoided: Any = context.avoid_agents
    if isinstance(avoided, str) or not all(isinstance(name, str) for name in avoided):
        raise TypeError(f"avoid_agents is {_shown(avoided)}; it is a set of names")
    timeout_s = context.next_timeout_s
    return Recovery(
        delay_s=_seconds("delay_s", context.delay_s),
        timeout_s=None if timeout_s is None else _seconds("timeout_s", timeout_s, is_positive=True),
        avoid_agents=frozenset(avoided),
        give_up=None if context.given_up is None else str(context.given_up)[:MAX_LINE],
    )


def _seconds(name: str, value: Any, *, is_positive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {_shown(value)}; it is a number of seconds")
    if not 0 <= value <= MAX_S or (is_positive and value == 0):
        raise ValueError(
            f"{name} is {_shown(value)}; it is in seconds, {'over' if is_positive else 'from'} 0 and at most {MAX_S:g}"
        )
    return float(value)


def _shown(value: object) -> str:
    return repr(value)[:_SHOWN]


def _changes(planned: Recovery, result: Recovery) -> list[str]:
    """What differs from the plan, in words."""
    if result.give_up is not None:
        return [f"gave up: {result.give_up}"]
    changes = []
    if result.delay_s != planned.delay_s:
        word = "raised" if result.delay_s > planned.delay_s else "lowered"
        changes.append(f"delay {word} from {_told(planned.delay_s)} to {_told(result.delay_s)}")
    if result.timeout_s != planned.timeout_s:
        before, after = planned.timeout_s, result.timeout_s
        word = "raised" if after is None or (before is not None and after > before) else "lowered"
        changes.append(f"timeout {word} from {_told(before)} to {_told(after)}")
    changes += [f"{name} is avoided" for name in sorted(result.avoid_agents - planned.avoid_agents)]
    changes += [f"{name} may try again" for name in sorted(planned.avoid_agents - result.avoid_agents)]
    return changes


def _told(seconds: float | None) -> str:
    return "none" if seconds is None else f"{round(seconds, 3):.12g} s"
