"""A user's strategy changes the next attempt, and whatever it does wrong, there is a next attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.recovery.context import MAX_LINE, MAX_LINES, RecoveryContext
from contexten.extensions.flow.recovery.recovering import Recovery, recover

pytestmark = pytest.mark.anyio

Strategy = Callable[[RecoveryContext], Any]
PLANNED = Recovery(delay_s=1.0, timeout_s=5.0, avoid_agents=frozenset({"b"}), give_up=None)


@pytest.fixture
def context(failed: Any) -> RecoveryContext:
    made = failed("custom_error", agents=("a", "b", "c"), timeout_s=5.0, avoid_agents={"b"})
    assert isinstance(made, RecoveryContext)
    return made


@pytest.fixture
def recovered(context: RecoveryContext, clock: Any) -> Any:
    async def recovered(strategy: Strategy) -> Recovery:
        return await recover(context, {"custom_error": strategy}, clock)

    return recovered


async def test_a_strategy_changes_the_next_attempt_and_the_journal_tells_how(recovered: Any) -> None:
    async def mine(context: RecoveryContext) -> None:
        context.delay_s = 0.5
        context.next_timeout_s = None
        context.avoid_agents = {"c"}
        context.steps.append("the moon is full")
        context.log("info", f"try {context.attempt} of {context.max_attempts}")

    assert await recovered(mine) == Recovery(
        delay_s=0.5,
        timeout_s=None,
        avoid_agents=frozenset({"c"}),
        give_up=None,
        steps=(
            "the moon is full",
            "delay lowered from 1 s to 0.5 s",
            "timeout raised from 5 s to none",
            "c is avoided",
            "b may try again",
        ),
        lines=(("info", "try 1 of 4"),),
    )


async def test_a_strategy_may_answer_what_to_change(recovered: Any) -> None:
    async def mine(context: RecoveryContext) -> dict[str, object]:
        return {"delay_s": 7, "timeout_s": 2, "agent": "c", "give_up": False}

    recovery = await recovered(mine)
    assert (recovery.delay_s, recovery.timeout_s, recovery.avoid_agents) == (7.0, 2.0, {"a", "b"})
    assert recovery.give_up is None
    assert recovery.steps == ("delay raised from 1 s to 7 s", "timeout lowered from 5 s to 2 s", "a is avoided")


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (lambda context: False, "the recovery strategy for custom_error gave up"),
        (lambda context: {"give_up": True}, "the recovery strategy for custom_error gave up"),
        (lambda context: {"give_up": "no money left"}, "no money left"),
        (lambda context: context.give_up("no money left"), "no money left"),
    ],
)
async def test_a_strategy_may_give_up(recovered: Any, strategy: Strategy, reason: str) -> None:
    recovery = await recovered(strategy)
    assert recovery.give_up == reason
    assert recovery.steps == (f"gave up: {reason}",)


@pytest.mark.parametrize("answer", [None, True, {}])
async def test_a_plain_function_serves_too_and_nothing_means_as_planned(recovered: Any, answer: object) -> None:
    assert await recovered(lambda context: answer) == PLANNED


def changing(name: str, value: object) -> Strategy:
    return lambda context: setattr(context, name, value)


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (lambda context: {"delay_s": -1}, "delay_s is -1; it is in seconds, from 0"),
        (lambda context: {"delay_s": float("nan")}, "delay_s is nan"),
        (lambda context: {"delay_s": 10**400}, "delay_s is 1000"),
        (lambda context: {"delay_s": "5"}, "delay_s is '5'; it is a number of seconds"),
        (lambda context: {"delay_s": None}, "delay_s is None"),
        (lambda context: {"timeout_s": 0}, "timeout_s is 0; it is in seconds, over 0"),
        (lambda context: {"timeout_s": True}, "timeout_s is True"),
        (
            lambda context: {"timeout_s": 1e9 + 1},
            "timeout_s is 1000000001.0; it is in seconds, over 0 and at most 1e+09",
        ),
        (lambda context: {"agent": "z"}, "agent is 'z'; able to take the task: a, b, c"),
        (lambda context: {"agent": ["a"]}, "agent is ['a']"),
        (lambda context: {"give_up": 1}, "give_up is 1; it is true, false or a reason"),
        (lambda context: {"delay": 1}, "'delay'; it can answer delay_s, timeout_s, agent and give_up"),
        (lambda context: "later", "it answered 'later', not None, False or a mapping"),
        (changing("delay_s", -1), "delay_s is -1"),
        (changing("next_timeout_s", float("inf")), "timeout_s is inf"),
        (changing("avoid_agents", "a"), "avoid_agents is 'a'; it is a set of names"),
        (changing("avoid_agents", {1}), "avoid_agents is {1}"),
        (changing("avoid_agents", None), "TypeError"),
    ],
)
async def test_a_senseless_change_is_told_and_the_plan_stays(recovered: Any, strategy: Strategy, told: str) -> None:
    def mine(context: RecoveryContext) -> object:
        context.log("info", "before")
        context.delay_s = 99.0
        return strategy(context)

    recovery = await recovered(mine)
    assert (recovery.delay_s, recovery.timeout_s, recovery.avoid_agents) == (1.0, 5.0, {"b"})
    assert recovery.steps == ()
    assert recovery.lines[0] == ("info", "before")
    level, text = recovery.lines[1]
    assert level == "warning"
    assert text.startswith("The next attempt is as planned: the recovery strategy for custom_error failed: ")
    assert told in text


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("it broke"), "RuntimeError: it broke"),
        (SystemExit(3), "SystemExit: 3"),
        (Mute(), "Mute"),
        (asyncio.CancelledError(), "CancelledError"),
        (ExceptionGroup("two", [ValueError("one")]), "ExceptionGroup"),
    ],
)
async def test_a_strategy_that_raises_changes_nothing_and_is_told(
    recovered: Any, context: RecoveryContext, error: BaseException, told: str
) -> None:
    async def mine(context: RecoveryContext) -> None:
        await context.reinitialize("c")
        context.give_up("half done")
        raise error

    recovery = await recovered(mine)
    assert recovery.give_up is None
    assert recovery.delay_s == 1.0
    assert recovery.steps == ("c was reinitialised",)
    assert recovery.lines[0][1].endswith(f"for custom_error failed: {told}") or told == "ExceptionGroup"
    assert told in recovery.lines[0][1]


async def test_a_strategy_that_hangs_is_ended_after_half_a_minute(context: RecoveryContext, clock: Any) -> None:
    was_cancelled = anyio.Event()

    async def mine(context: RecoveryContext) -> None:
        context.delay_s = 99.0
        try:
            await anyio.sleep_forever()
        finally:
            was_cancelled.set()

    recoveries: list[Recovery] = []

    async def run() -> None:
        recoveries.append(await recover(context, {"custom_error": mine}, clock))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            await clock.advance(29.9)
            assert not was_cancelled.is_set()
            await clock.advance(0.2)
    assert was_cancelled.is_set()
    assert recoveries[0].delay_s == 1.0
    assert recoveries[0].lines[0][1].endswith("took longer than 30 s")
    assert clock.deadlines == []


async def test_a_cancellation_from_outside_goes_through(context: RecoveryContext, clock: Any) -> None:
    async def mine(context: RecoveryContext) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(recover, context, {"custom_error": mine}, clock)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert clock.deadlines == []


async def test_a_prompt_strategy_leaves_no_timer(recovered: Any, clock: Any) -> None:
    await recovered(lambda context: None)
    assert clock.deadlines == []


async def test_a_flood_of_lines_and_steps_is_cut(recovered: Any) -> None:
    def mine(context: RecoveryContext) -> None:
        for _ in range(10 * MAX_LINES):
            context.log("info", "x" * 2 * MAX_LINE)
            context.steps.append("y" * 2 * MAX_LINE)
        context.steps[0] = 5  # type: ignore[call-overload]  # a stranger may
        context.give_up("z" * 2 * MAX_LINE)

    recovery = await recovered(mine)
    assert len(recovery.lines) == MAX_LINES
    assert len(recovery.steps) <= MAX_LINES + 1
    assert all(isinstance(step, str) and len(step) <= MAX_LINE + len("gave up: ") for step in recovery.steps)
    assert all(len(text) == MAX_LINE for _, text in recovery.lines)


async def test_only_an_able_agent_can_be_reinitialised(recovered: Any, host: Any) -> None:
    async def mine(context: RecoveryContext) -> None:
        await context.reinitialize("z")

    recovery = await recovered(mine)
    assert "'z' is no agent of this task; there are a, b, c" in recovery.lines[0][1]
    assert host.asked == []
