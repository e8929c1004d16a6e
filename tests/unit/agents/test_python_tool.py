from __future__ import annotations

import sys
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.agents import BuiltinToolAgent
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.recovery.kinds import classify
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio

Run = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("flow_test_functions")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.fixture
def call(run_tools: Run, module: types.ModuleType) -> Run:
    async def call(name: str, *before: str, **parameters: Any) -> Any:
        functions = tuple(f"{module.__name__}:{name}" for name in vars(module) if not name.startswith("__"))
        allowed = {
            "allow_functions": (*functions, "no_such_module:f", "flow_test_functions:gone", "json:dumps", "math:sqrt")
        }
        name = name if ":" in name else f"{module.__name__}:{name}"
        with anyio.fail_after(20):
            return await run_tools(*before, "python", settings=allowed, function=name, **parameters)

    return call


def add(module: types.ModuleType, function: Callable[..., Any]) -> None:
    setattr(module, function.__name__, function)


async def failure(call: Awaitable[Any]) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await call
    return caught.value


async def test_a_sync_function_runs_on_another_thread(call: Run, module: types.ModuleType) -> None:
    threads: list[threading.Thread] = []

    def double(x: int, times: int = 2) -> list[int]:
        threads.append(threading.current_thread())
        return [x] * times

    add(module, double)
    assert await call("double", arguments={"x": 3, "times": 3}) == [3, 3, 3]
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


async def test_a_list_gives_positional_arguments(call: Run, module: types.ModuleType) -> None:
    def power(base: int, exponent: int, /) -> int:
        return int(base**exponent)

    add(module, power)
    assert await call("power", arguments=[2, 5]) == 32
    assert await call("math:sqrt", arguments=[16]) == 4.0


async def test_an_async_function_is_awaited(call: Run, module: types.ModuleType) -> None:
    async def late(x: int) -> int:
        await anyio.lowlevel.checkpoint()
        return x + 1

    add(module, late)
    assert await call("late", arguments={"x": 1}) == 2


async def test_arguments_default_to_an_object_that_came_before(call: Run, module: types.ModuleType) -> None:
    def total(a: int, b: int) -> int:
        return a + b

    add(module, total)
    assert await call("total", "json_parser", text='{"a": 1, "b": 2}') == 3
    assert "not an object" in (await failure(call("total", "json_parser", text="[1]"))).message


async def test_an_exception_of_the_function_keeps_its_class(call: Run, module: types.ModuleType) -> None:
    class QuotaExceeded(Exception):
        pass

    def fail() -> None:
        raise QuotaExceeded("no more")

    add(module, fail)
    with pytest.raises(QuotaExceeded, match="no more") as caught:
        await call("fail")
    assert classify(caught.value) == "quota_exceeded"


async def test_even_what_ends_a_program_ends_only_the_attempt(call: Run, module: types.ModuleType) -> None:
    def leave() -> None:
        sys.exit(3)

    def stop() -> None:
        raise StopIteration

    add(module, leave)
    add(module, stop)

    async def leave_later() -> None:
        sys.exit(3)

    add(module, leave_later)
    for name in ("leave", "leave_later", "stop"):
        with pytest.raises(RuntimeError) as caught:
            await call(name)
        assert classify(caught.value) == "agent_failure"


@pytest.mark.parametrize("output", [float("nan"), {1: 2}, {"a": {2}}, b"x", object(), "\ud800", 2**60])
async def test_an_output_that_is_not_json_is_invalid(call: Run, module: types.ModuleType, output: Any) -> None:
    def give() -> Any:
        return output

    add(module, give)
    assert (await failure(call("give"))).kind == "invalid"


async def test_a_cyclic_or_huge_output_is_invalid(call: Run, module: types.ModuleType) -> None:
    def cycle() -> Any:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    def flood() -> str:
        return "x" * (11 << 20)

    add(module, cycle)
    add(module, flood)
    assert (await failure(call("cycle"))).kind == "invalid"
    assert (await failure(call("flood"))).kind == "invalid"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("os:system", {"command": "true"}, "CONTEXTEN_FLOW_ALLOW_FUNCTIONS"),
        ("json:loads", {"s": "1"}, "not allowed"),
        ("no_such_module:f", {}, "no_such_module"),
        ("flow_test_functions:gone", {}, "has no gone"),
        ("json:dumps", {"no": 1}, "parameters/arguments"),
        ("json:dumps", [1, 2], "parameters/arguments"),
        ("nonsense", {}, "parameters/function"),
    ],
)
async def test_what_cannot_be_called_is_invalid(call: Run, name: str, arguments: Any, words: str) -> None:
    error = await failure(call(name, arguments=arguments))
    assert error.kind == "invalid"
    assert words in error.message


async def test_a_function_that_hangs_is_left_behind_when_the_attempt_is_cancelled(
    call: Run, module: types.ModuleType
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        leave.wait(60)

    add(module, hang)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: call("hang"))
            while not entered.is_set():
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    leave.set()


def test_shell_and_python_are_off_by_default_and_say_what_enables_them() -> None:
    agent = BuiltinToolAgent(FlowSettings(), SystemClock())
    assert "shell" not in agent.tools
    assert "python" not in agent.tools
    assert "CONTEXTEN_FLOW_ALLOW_COMMANDS" in agent.disabled_tools["shell"]
    assert "CONTEXTEN_FLOW_ALLOW_FUNCTIONS" in agent.disabled_tools["python"]
    enabled = BuiltinToolAgent(FlowSettings(allow_commands=("cat",), allow_functions=("a:b",)), SystemClock())
    assert {"shell", "python"} <= set(enabled.tools)
    assert enabled.disabled_tools == {}
