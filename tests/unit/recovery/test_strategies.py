"""The built-in strategies, each asked as the orchestrator asks it, and the mapping that users add to."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from typing import Any

import pytest

from contexten.extensions.flow.recovery.kinds import BUILTIN_KINDS, NEVER_RETRIED
from contexten.extensions.flow.recovery.recovering import Recovery, recover
from contexten.extensions.flow.recovery.strategies import BUILTIN, RecoveryStrategies

pytestmark = pytest.mark.anyio


@pytest.fixture
def recovered(failed: Any, clock: Any) -> Any:
    async def recovered(kind: str, **fields: Any) -> Recovery:
        return await recover(failed(kind, **fields), RecoveryStrategies(), clock)

    return recovered


async def test_a_timeout_doubles_the_next_timeout(recovered: Any) -> None:
    recovery = await recovered("timeout", timeout_s=2.0, first_timeout_s=2.0)
    assert (recovery.timeout_s, recovery.delay_s) == (4.0, 1.0)
    assert recovery.steps == ("timeout raised from 2 s to 4 s",)


async def test_a_timeout_grows_to_ten_times_the_first_and_no_further(recovered: Any) -> None:
    limits = [3.0]
    for _ in range(6):
        limits.append((await recovered("timeout", timeout_s=limits[-1], first_timeout_s=3.0)).timeout_s)
    assert limits == [3, 6, 12, 24, 30, 30, 30]


async def test_a_timeout_that_is_not_the_tasks_own_leaves_none(recovered: Any) -> None:
    recovery = await recovered("timeout")
    assert recovery.timeout_s is None
    assert recovery.steps == ("the attempt had no timeout_s to raise",)


async def test_after_an_agents_failure_another_able_agent_is_to_try(recovered: Any, host: Any) -> None:
    recovery = await recovered("agent_failure", agents=("a", "b", "c"), avoid_agents={"b"})
    assert recovery.avoid_agents == {"a", "b"}
    assert recovery.steps == ("a is avoided",)
    assert host.asked == []


async def test_once_all_agents_failed_the_last_begins_anew_and_so_does_the_round(recovered: Any, host: Any) -> None:
    recovery = await recovered("agent_failure", agent="b", agents=("a", "b"), avoid_agents={"a"})
    assert recovery.avoid_agents == {"b"}
    assert recovery.steps == ("b was reinitialised", "b is avoided", "a may try again")
    assert host.asked == ["reinitialize b"]


async def test_all_agents_have_a_turn_and_none_has_two_in_succession(recovered: Any) -> None:
    agents, avoided, turns = ("a", "b", "c"), frozenset[str](), ["a"]
    for _ in range(9):
        avoided = (
            await recovered("agent_failure", agent=turns[-1], agents=agents, avoid_agents=set(avoided))
        ).avoid_agents
        turns.append(next(name for name in agents if name not in avoided))
    assert turns[:3] == ["a", "b", "c"]
    assert all(before != after for before, after in pairwise(turns))


async def test_the_only_agent_is_reinitialised(recovered: Any, host: Any) -> None:
    recovery = await recovered("agent_failure")
    assert recovery.avoid_agents == frozenset()
    assert recovery.steps == ("a was reinitialised",)
    assert host.asked == ["reinitialize a"]


async def test_a_programs_exit_code_is_no_reason_to_begin_anew(recovered: Any, host: Any) -> None:
    recovery = await recovered("agent_failure", details={"exit_code": 1})
    assert (recovery.steps, recovery.delay_s, host.asked) == ((), 1.0, [])


async def test_an_agent_that_cannot_be_reinitialised_tries_again_all_the_same(recovered: Any, host: Any) -> None:
    host.error = RuntimeError("no")
    recovery = await recovered("agent_failure")
    assert (recovery.give_up, recovery.delay_s, recovery.steps) == (None, 1.0, ())
    assert recovery.lines == (("warning", "reinitialising a failed: RuntimeError: no"),)


async def test_a_failure_without_an_agent_changes_nothing(recovered: Any) -> None:
    assert (await recovered("agent_failure", agent=None, agents=())).steps == ()


async def test_a_shortage_frees_what_can_be_freed_and_waits_longer(recovered: Any, host: Any) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    gc.collect()
    gc.disable()
    try:
        garbage = weakref.ref(Cycle())
        assert garbage() is not None
        recovery = await recovered("resource")
        assert garbage() is None
    finally:
        gc.enable()
    assert host.asked == ["close_caches", "lower_concurrency"]
    assert recovery.delay_s == 2.0
    assert recovery.steps[0] == "caches were closed"
    assert recovery.steps[1].startswith("garbage collected: ")
    assert recovery.steps[2:] == ("concurrency lowered to 4", "delay raised from 1 s to 2 s")


async def test_a_shortage_waits_longer_even_where_nothing_can_be_freed(recovered: Any, host: Any) -> None:
    host.error, host.limit = OSError("no"), None
    recovery = await recovered("resource")
    assert recovery.delay_s == 2.0
    assert "concurrency" not in " ".join(recovery.steps)
    assert recovery.lines == (("warning", "closing caches failed: OSError: no"),)


@pytest.mark.parametrize("kind", ["network", "rate_limit"])
async def test_the_delay_doubles_within_the_tasks_own_bound(recovered: Any, kind: str) -> None:
    assert (await recovered(kind)).delay_s == 2.0
    assert (await recovered(kind, delay_s=40.0)).delay_s == 60.0
    assert (await recovered(kind, delay_s=8.0, max_delay_s=8.0)).steps == ()
    assert (await recovered(kind, delay_s=0.0)).delay_s == 0.0


@pytest.mark.parametrize("kind", ["network", "rate_limit", "resource"])
async def test_what_a_server_asks_to_wait_is_waited_whatever_the_tasks_bound(recovered: Any, kind: str) -> None:
    recovery = await recovered(kind, details={"status": 429, "retry_after_s": 90.0})
    assert recovery.delay_s == 90.0
    assert recovery.steps[-2:] == ("the server asked to wait 90 s", "delay raised from 1 s to 90 s")


async def test_a_server_shortens_no_delay_and_is_heeded_for_an_hour_at_most(recovered: Any) -> None:
    assert (await recovered("rate_limit", details={"retry_after_s": 0})).delay_s == 1.0
    assert (await recovered("rate_limit", details={"retry_after_s": 86400.0})).delay_s == 3600.0


@pytest.mark.parametrize("value", ["soon", -1, True, None, float("inf"), float("nan"), [3]])
async def test_a_senseless_retry_after_counts_as_none(recovered: Any, value: object) -> None:
    assert (await recovered("rate_limit", details={"retry_after_s": value})).delay_s == 2.0


@pytest.mark.parametrize("kind", sorted(BUILTIN_KINDS - BUILTIN.keys() | {"custom_error"}))
async def test_other_kinds_are_tried_again_as_planned(recovered: Any, kind: str) -> None:
    recovery = await recovered(kind, timeout_s=5.0, avoid_agents={"b"})
    assert recovery == Recovery(delay_s=1.0, timeout_s=5.0, avoid_agents=frozenset({"b"}), give_up=None)


async def test_the_mapping_begins_with_the_built_in_strategies_and_takes_more() -> None:
    async def mine(context: object) -> None:
        pass

    strategies = RecoveryStrategies({"timeout": mine})
    strategies["custom_error"] = mine
    del strategies["network"]
    assert {kind: strategy for kind, strategy in strategies.items() if strategy is mine}.keys() == {
        "timeout",
        "custom_error",
    }
    assert strategies.keys() == BUILTIN.keys() - {"network"} | {"custom_error"}
    assert BUILTIN["timeout"] is not mine


async def test_what_cannot_be_called_is_no_strategy() -> None:
    with pytest.raises(TypeError, match=r"the strategy for 'network' is an async function of the context, got 5"):
        RecoveryStrategies()["network"] = 5  # type: ignore[assignment]  # that is the point


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("CustomError", "such as custom_error"),
        ("HTTPServerError", "such as http_server_error"),
        ("", "such as custom_error"),
        *((kind, "never retried") for kind in NEVER_RETRIED),
    ],
)
async def test_a_strategy_that_would_never_be_asked_is_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecoveryStrategies({kind: lambda context: None})
